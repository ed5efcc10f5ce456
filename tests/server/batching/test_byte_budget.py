import threading
import time

import pytest

from server.batching.byte_budget import ByteBudget
from server.batching.request import Caller
from server.errors import Cancelled, QueueFull, TooLarge, TooMany

TOTAL = 100
PATIENCE_S = 30.0


def soon_ns(seconds=PATIENCE_S):
    return time.monotonic_ns() + int(seconds * 1e9)


def never():
    pytest.fail("it waited")


class Waiter:
    """A thread that acquires; `waits` is set once it is about to wait, `done` when it is over."""

    def __init__(self, budget, size_bytes, deadline_ns=None, **caller):
        self.waits = threading.Event()
        self.done = threading.Event()
        self.calls = 0
        self.error = None
        self._arguments = budget, size_bytes, Caller(deadline_ns=deadline_ns, **caller)
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        budget, size_bytes, caller = self._arguments
        try:
            budget.acquire(size_bytes, caller, before_waiting=self._before_waiting)
        except (QueueFull, Cancelled) as error:
            self.error = error
        self.done.set()

    def _before_waiting(self):
        self.calls += 1
        self.waits.set()


def test_bytes_are_taken_up_to_the_total_without_waiting():
    budget = ByteBudget(TOTAL)
    budget.acquire(60, before_waiting=never)
    budget.acquire(40, before_waiting=never)
    assert budget.used_bytes == TOTAL
    budget.acquire(0, before_waiting=never)


def test_bytes_given_back_are_free_again():
    budget = ByteBudget(TOTAL)
    for _ in range(3):
        budget.acquire(TOTAL)
        budget.release(TOTAL)
    assert budget.used_bytes == 0


def test_more_than_the_total_is_too_large_at_once():
    budget = ByteBudget(TOTAL)
    with pytest.raises(
        TooLarge, match=r"has 101 bytes, expected at most the server's whole budget of 100$"
    ):
        budget.acquire(TOTAL + 1, before_waiting=never)
    assert budget.used_bytes == 0


def test_the_deadline_ends_the_wait():
    budget = ByteBudget(TOTAL)
    budget.acquire(50)
    began = time.monotonic()
    with pytest.raises(QueueFull, match="stayed exhausted until the deadline"):
        budget.acquire(51, Caller(deadline_ns=soon_ns(0.05)))
    assert 0.05 <= time.monotonic() - began < PATIENCE_S
    assert budget.used_bytes == 50


def test_a_deadline_that_passed_leaves_no_wait():
    budget = ByteBudget(TOTAL)
    budget.acquire(TOTAL)
    with pytest.raises(QueueFull):
        budget.acquire(1, Caller(deadline_ns=time.monotonic_ns() - 1))


@pytest.mark.parametrize("deadline", [None, PATIENCE_S])
def test_giving_back_enough_wakes_who_waits(deadline):
    budget = ByteBudget(TOTAL)
    budget.acquire(40)
    budget.acquire(60)
    waiter = Waiter(budget, 50, deadline and soon_ns(deadline))
    assert waiter.waits.wait(PATIENCE_S)
    assert not waiter.done.is_set()
    budget.release(40)
    assert budget.used_bytes == 60
    budget.release(10)
    assert waiter.done.wait(PATIENCE_S)
    assert waiter.error is None
    assert budget.used_bytes == TOTAL
    assert waiter.calls == 1


def test_giving_back_too_little_wakes_nobody():
    budget = ByteBudget(TOTAL)
    budget.acquire(TOTAL)
    waiter = Waiter(budget, 50, soon_ns(0.1))
    assert waiter.waits.wait(PATIENCE_S)
    for _ in range(49):
        budget.release(1)
    assert waiter.done.wait(PATIENCE_S)
    assert isinstance(waiter.error, QueueFull)
    assert budget.used_bytes == TOTAL - 49
    assert waiter.calls == 1


def test_one_release_wakes_everybody_who_fits():
    budget = ByteBudget(TOTAL)
    budget.acquire(TOTAL)
    waiters = [Waiter(budget, 25) for _ in range(4)]
    assert all(waiter.waits.wait(PATIENCE_S) for waiter in waiters)
    budget.release(TOTAL)
    assert all(waiter.done.wait(PATIENCE_S) for waiter in waiters)
    assert budget.used_bytes == TOTAL


def test_bytes_may_come_back_before_the_wait_begins():
    # What is called before waiting may itself make the room: nobody is notified then.
    budget = ByteBudget(TOTAL)
    budget.acquire(TOTAL)
    budget.acquire(
        TOTAL, Caller(deadline_ns=soon_ns()), before_waiting=lambda: budget.release(TOTAL)
    )
    assert budget.used_bytes == TOTAL


def test_the_total_is_never_exceeded_under_load():
    budget = ByteBudget(TOTAL)
    held = []
    lock = threading.Lock()
    most = 0

    def work(size_bytes):
        nonlocal most
        for _ in range(200):
            budget.acquire(size_bytes, Caller(deadline_ns=soon_ns()))
            with lock:
                held.append(size_bytes)
                most = max(most, sum(held))
            with lock:
                held.remove(size_bytes)
            budget.release(size_bytes)

    threads = [threading.Thread(target=work, args=(size,)) for size in (30, 45, 60, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    assert 60 <= most <= TOTAL
    assert budget.used_bytes == 0


def test_small_requests_do_not_pass_a_large_one_that_waits():
    budget = ByteBudget(10)
    budget.acquire(6)
    waiting, order = threading.Event(), []

    def large():
        budget.acquire(10, before_waiting=waiting.set)
        order.append("large")
        budget.release(10)

    thread = threading.Thread(target=large)
    thread.start()
    assert waiting.wait(PATIENCE_S)
    with pytest.raises(QueueFull):  # it would fit, but the large one came first
        budget.acquire(1, Caller(deadline_ns=time.monotonic_ns() + 50_000_000))
    budget.release(6)
    thread.join(PATIENCE_S)
    budget.acquire(1)
    assert order == ["large"]


def test_clients_take_turns_however_many_requests_of_one_wait():
    budget = ByteBudget(10)
    budget.acquire(10)
    many = []
    for _ in range(5):
        many.append(Waiter(budget, 10, client="many"))
        assert many[-1].waits.wait(PATIENCE_S)
    one = Waiter(budget, 10, client="one")
    assert one.waits.wait(PATIENCE_S)
    # The first of the many came before anybody else.
    for _ in range(2):
        budget.release(10)
    assert one.done.wait(PATIENCE_S)
    assert many[0].done.wait(PATIENCE_S)
    assert not any(waiter.done.wait(0) for waiter in many[1:])
    for waiter in many[1:]:
        budget.release(10)
        assert waiter.done.wait(PATIENCE_S)
    assert budget.used_bytes == 10


def test_who_is_gone_waits_no_longer_and_lets_the_next_in():
    budget = ByteBudget(10)
    budget.acquire(5)
    gone = []

    def on_cancel(wake):
        gone.append(wake)
        return True

    large = Waiter(budget, 10, on_cancel=on_cancel)
    assert large.waits.wait(PATIENCE_S)
    small = Waiter(budget, 5)
    assert small.waits.wait(PATIENCE_S)
    while not gone:
        time.sleep(0.001)
    gone[0]()
    assert large.done.wait(PATIENCE_S)
    assert isinstance(large.error, Cancelled)
    assert small.done.wait(PATIENCE_S)
    assert (small.error, budget.used_bytes) == (None, 10)


def test_who_was_gone_before_does_not_wait():
    budget = ByteBudget(10)
    budget.acquire(10)
    with pytest.raises(Cancelled):
        budget.acquire(1, Caller(on_cancel=lambda _: False))
    assert budget.used_bytes == 10


def test_who_holds_bytes_and_needs_more_comes_before_those_that_hold_none():
    budget = ByteBudget(10)
    assert budget.take(4)
    assert budget.take(6)
    granted = []
    first = budget.ask(3, "new", lambda: granted.append("new"))
    more = budget.grow(4, 6, lambda: granted.append("grown"))
    assert budget.short
    budget.release(6)
    assert granted == ["grown"]
    assert (more.granted, first.granted, budget.used_bytes) == (True, False, 10)
    budget.release(10)
    assert granted == ["grown", "new"]


def test_callers_that_would_wait_for_each_other_are_refused():
    budget = ByteBudget(10)
    assert budget.take(4)
    assert budget.take(4)
    waiting = budget.grow(4, 6, lambda: None)
    with pytest.raises(TooMany, match="others that wait for more hold 4"):
        budget.grow(4, 5, lambda: None)
    # Once the other one gives its bytes back, the first has all it needs.
    assert not waiting.granted
    budget.release(4)
    assert waiting.granted
    assert budget.used_bytes == 10


def test_growing_beyond_the_total_is_too_large_and_withdrawing_lets_others_in():
    budget = ByteBudget(10)
    assert budget.take(8)
    with pytest.raises(TooLarge):
        budget.grow(8, 3, lambda: None)
    assert budget.take(2)
    more = budget.grow(8, 2, lambda: None)
    assert not budget.withdraw(more)
    assert not budget.short


def test_what_is_there_already_may_exceed_the_total_by_a_bound():
    budget = ByteBudget(10)
    assert budget.take(10)
    assert budget.charge(5, 5)
    assert not budget.charge(1, 5)
    assert budget.used_bytes == 15
    assert not budget.take(1)
