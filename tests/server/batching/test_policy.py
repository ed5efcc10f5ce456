import dataclasses
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.batching.fair_queue import FairQueue
from server.batching.policy import CloseReason, Limits, place, rows_to_wait_for, take, wait_ns
from server.batching.request import Request

MS = 1_000_000
LIMITS = Limits(group_rows=8, slice_rows=20)
PATIENT = Limits(group_rows=8, slice_rows=20, queue_delay_ns=5 * MS)


def waiting(rows, arrived_ns=0, key=None, **fields):
    return Request(inputs={}, outputs=(), rows=rows, arrived_ns=arrived_ns, key=key, **fields)


def announced(rows, arrived_ns=0):
    """A request whose sender says that more follows."""
    return waiting(rows, arrived_ns, more_follows=True)


def verdict(*queue, limits=LIMITS, now_ns=0, enough_rows=8, flush=False):
    return wait_ns(queue, limits, now_ns, enough_rows=enough_rows, flush=flush)


def batches(*queue, limits=LIMITS):
    """All batches of a queue, each as a list of (index of the request, start, stop)."""
    turns = FairQueue()
    for request in queue:
        request.start_tag = turns.start_tag("", request.rows)
    left = deque(queue)
    taken = []
    while left:
        batch = take(left, limits, CloseReason.IDLE)
        taken.append([(queue.index(p.request), p.start, p.stop) for p in batch.pieces])
    return taken


# How long to wait.


def test_an_idle_worker_waits_for_nobody():
    assert verdict(waiting(1)) == (0, CloseReason.IDLE)
    assert verdict(waiting(1), waiting(2), waiting(3)) == (0, CloseReason.IDLE)


def test_an_empty_queue_has_no_verdict():
    with pytest.raises(ValueError, match="an empty queue has no head"):
        verdict()


@pytest.mark.parametrize("rows", [(8,), (9,), (100,), (7, 1), (1,) * 8])
def test_a_full_batch_goes_at_once(rows):
    queue = [waiting(count) for count in rows]
    assert verdict(*queue, limits=PATIENT) == (0, CloseReason.FULL)


def test_rows_that_were_taken_fill_no_batch():
    assert verdict(waiting(10, taken_rows=3), limits=PATIENT) == (5 * MS, CloseReason.DELAY)
    assert verdict(waiting(10, taken_rows=2), limits=PATIENT) == (0, CloseReason.FULL)


def test_the_head_waits_the_queue_delay():
    queue = waiting(1, 100 * MS), waiting(1, 103 * MS)
    assert verdict(*queue, limits=PATIENT, now_ns=100 * MS) == (5 * MS, CloseReason.DELAY)
    assert verdict(*queue, limits=PATIENT, now_ns=104 * MS) == (1 * MS, CloseReason.DELAY)
    assert verdict(*queue, limits=PATIENT, now_ns=105 * MS - 1) == (1, CloseReason.DELAY)


@pytest.mark.parametrize("late_ns", [0, 1, 10**12])
def test_the_head_goes_when_the_queue_delay_is_up(late_ns):
    queue = waiting(1, 100 * MS), waiting(1, 103 * MS)
    assert verdict(*queue, limits=PATIENT, now_ns=105 * MS + late_ns) == (0, CloseReason.DELAY)


def test_another_shape_closes_the_batch():
    assert verdict(waiting(1), waiting(1, key="b"), limits=PATIENT) == (0, CloseReason.SHAPE)
    assert verdict(announced(1), waiting(1, key="b")) == (0, CloseReason.SHAPE)


def test_a_full_batch_before_another_shape_is_full():
    assert verdict(waiting(8), waiting(1, key="b")) == (0, CloseReason.FULL)


def test_no_delay_counts_when_senders_wait_for_room():
    assert verdict(waiting(1), limits=PATIENT, flush=True) == (0, CloseReason.BYTES)
    assert verdict(announced(1), flush=True) == (0, CloseReason.BYTES)


def test_a_full_batch_in_a_hurry_is_full():
    assert verdict(waiting(8), flush=True) == (0, CloseReason.FULL)


def test_announced_requests_are_waited_for_since_the_last_arrival():
    queue = announced(1, 0), announced(1, 15 * MS)
    assert verdict(*queue, now_ns=16 * MS) == (19 * MS, CloseReason.DELAY)
    assert verdict(*queue, now_ns=35 * MS - 1) == (1, CloseReason.DELAY)


@pytest.mark.parametrize("limits", [LIMITS, PATIENT])
def test_announced_requests_that_never_come_are_given_up(limits):
    queue = announced(1, 0), announced(1, 15 * MS)
    assert verdict(*queue, limits=limits, now_ns=35 * MS) == (0, CloseReason.DELAY)


def test_the_last_of_the_announced_requests_ends_the_wait():
    assert verdict(announced(1), announced(1), waiting(1)) == (0, CloseReason.IDLE)


def test_a_request_without_company_announced_keeps_nobody_waiting():
    assert verdict(waiting(1), announced(1)) == (0, CloseReason.IDLE)
    assert verdict(waiting(1), announced(1), limits=PATIENT) == (5 * MS, CloseReason.DELAY)


def test_the_first_of_the_announced_requests_go_early():
    queue = announced(1), announced(2)
    assert verdict(*queue, enough_rows=4) == (20 * MS, CloseReason.DELAY)
    assert verdict(*queue, enough_rows=3) == (0, CloseReason.START)
    assert verdict(announced(3), waiting(1), limits=PATIENT, enough_rows=3)[1] is CloseReason.DELAY


def test_rows_waited_for_double_up_to_a_group_until_nothing_more_follows():
    limits = Limits(group_rows=20, slice_rows=20, first_rows=3)
    enough = limits.first_rows
    found = []
    for request in [announced(1)] * 4 + [waiting(1)] + [announced(1)] * 2:
        batch = take(deque([dataclasses.replace(request)]), limits, CloseReason.START)
        found.append(enough := rows_to_wait_for(enough, batch, limits))
    assert found == [6, 12, 20, 20, 3, 6, 12]


# What to take.


def test_small_requests_share_a_batch_in_order():
    queue = deque([waiting(2), waiting(3), waiting(1)])
    requests = list(queue)
    batch = take(queue, LIMITS, CloseReason.DELAY)
    assert [piece.request for piece in batch.pieces] == requests
    assert [piece.rows for piece in batch.pieces] == [2, 3, 1]
    assert (batch.rows, batch.closed, len(queue)) == (6, CloseReason.DELAY, 0)


def test_a_request_too_many_waits_for_the_next_batch():
    queue = waiting(4), waiting(4), waiting(4)
    assert batches(*queue) == [[(0, 0, 4), (1, 0, 4)], [(2, 0, 4)]]


def test_a_request_that_does_not_fit_is_split():
    assert batches(waiting(5), waiting(5)) == [[(0, 0, 5), (1, 0, 3)], [(1, 3, 5)]]


def test_other_keys_run_apart():
    queue = waiting(1, key="a"), waiting(1, key="b"), waiting(1, key="a"), waiting(1, key="a")
    assert batches(*queue) == [[(0, 0, 1)], [(1, 0, 1)], [(2, 0, 1), (3, 0, 1)]]


@pytest.mark.parametrize("rows", [8, 9, 20])
def test_a_large_request_runs_alone(rows):
    queue = waiting(rows), waiting(1)
    assert batches(*queue) == [[(0, 0, rows)], [(1, 0, 1)]]


def test_a_large_request_is_full_whatever_was_waited_for():
    batch = take(deque([waiting(8)]), LIMITS, CloseReason.IDLE)
    assert (batch.rows, batch.closed) == (8, CloseReason.FULL)


def test_a_larger_request_runs_in_slices():
    assert batches(waiting(50)) == [[(0, 0, 20)], [(0, 20, 40)], [(0, 40, 50)]]


def test_the_tail_of_a_large_request_shares_a_batch_with_its_followers():
    queue = waiting(43), waiting(2), waiting(5)
    assert batches(*queue) == [
        [(0, 0, 20)],
        [(0, 20, 40)],
        [(0, 40, 43), (1, 0, 2), (2, 0, 3)],
        [(2, 3, 5)],
    ]


def test_a_large_request_behind_a_small_one_is_not_copied():
    queue = waiting(2), waiting(8), waiting(1)
    assert batches(*queue) == [[(0, 0, 2)], [(1, 0, 8)], [(2, 0, 1)]]


def test_what_was_not_taken_stays_at_the_head():
    queue = deque([waiting(5), waiting(5)])
    second = queue[1]
    take(queue, LIMITS, CloseReason.IDLE)
    assert list(queue) == [second]
    assert second.taken_rows == 3


@st.composite
def limits_strategy(draw):
    group_rows = draw(st.integers(1, 8))
    return Limits(group_rows, draw(st.integers(group_rows, 24)))


arrivals = st.lists(
    st.tuples(st.integers(1, 30), st.sampled_from("aab"), st.booleans()), min_size=1, max_size=12
)


@settings(deadline=None, max_examples=120)
@given(limits_strategy(), arrivals)
def test_every_row_is_handed_out_once_and_in_order(limits, arriving):
    queue = deque()
    turns = FairQueue()
    requests = []
    handed_out = []

    def take_one():
        head, followers = queue[0], list(queue)
        head_left = head.rows - head.taken_rows
        batch = take(queue, limits, CloseReason.IDLE)
        assert batch.rows == sum(piece.stop - piece.start for piece in batch.pieces)
        assert batch.pieces[0].request is head
        assert all(piece.rows > 0 and piece.request.key == head.key for piece in batch.pieces)
        if head_left >= limits.group_rows:
            assert [piece.rows for piece in batch.pieces] == [min(head_left, limits.slice_rows)]
        else:
            assert batch.rows <= limits.group_rows
        if batch.rows < limits.group_rows and queue:
            # Only another key, or a request that is better run in place, leaves room.
            follower = queue[0]
            assert follower in followers
            assert follower.key != head.key or follower.rows >= limits.group_rows
        for piece in batch.pieces:
            index = requests.index(piece.request)
            handed_out.extend((index, row) for row in range(piece.start, piece.stop))

    for rows, key, take_now in arriving:
        requests.append(waiting(rows, key=key, start_tag=turns.start_tag("", rows)))
        place(queue, requests[-1])
        if take_now:
            take_one()
    while queue:
        take_one()
    wanted = [(index, row) for index, r in enumerate(requests) for row in range(r.rows)]
    assert handed_out == wanted


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.builds(waiting, st.integers(1, 10), st.integers(0, 50)), min_size=1, max_size=5),
    st.integers(0, 60),
    st.integers(0, 20),
)
def test_waiting_as_long_as_told_is_enough(queue, now_ns, delay_ns):
    limits = Limits(8, 20, queue_delay_ns=delay_ns)
    left_ns, _ = verdict(*queue, limits=limits, now_ns=now_ns)
    assert 0 <= left_ns <= max(0, queue[0].arrived_ns + delay_ns - now_ns)
    assert verdict(*queue, limits=limits, now_ns=now_ns + left_ns)[0] == 0
