from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from server.batching.fair_queue import FairQueue
from server.batching.policy import CloseReason, Limits, place, take
from server.batching.request import Request

ONE_BY_ONE = Limits(group_rows=1, slice_rows=2)


class Line:
    """A queue whose requests take turns, served one batch at a time."""

    def __init__(self):
        self.queue = deque()
        self.fair_queue = FairQueue()

    def add(self, client, rows=1):
        request = Request(
            {}, (), rows, client=client, start_tag=self.fair_queue.start_tag(client, rows)
        )
        place(self.queue, request)

    def serve(self):
        """Serve a batch: who got how many rows."""
        self.fair_queue.advance(self.queue[0].start_tag)
        (piece,) = take(self.queue, ONE_BY_ONE, CloseReason.IDLE).pieces
        return piece.request.client, piece.rows

    def served(self):
        return [self.serve() for _ in iter(lambda: bool(self.queue), False)]


def test_one_client_is_served_in_the_order_it_asked():
    line = Line()
    for rows in (3, 1, 2):
        line.add("a", rows)
    assert [rows for _, rows in line.served()] == [2, 1, 1, 2]


def test_a_client_that_comes_late_is_next_however_much_waits():
    line = Line()
    for _ in range(100):
        line.add("many")
    line.serve()
    line.add("one")
    assert [line.serve()[0] for _ in range(3)] == ["one", "many", "many"]


def test_a_large_request_lets_others_in_between_its_slices():
    line = Line()
    line.add("large", 100)
    line.serve()
    line.add("small")
    assert [line.serve() for _ in range(3)] == [("small", 1), ("large", 2), ("large", 2)]


def test_clients_get_equal_shares_whatever_the_size_of_their_requests():
    line = Line()
    for _ in range(50):
        line.add("small", 1)
    for _ in range(5):
        line.add("large", 10)
    rows = {"small": 0, "large": 0}
    while min(rows.values()) < 40:
        client, got = line.serve()
        rows[client] += got
        assert abs(rows["small"] - rows["large"]) <= 10


def test_who_was_away_is_not_paid_back():
    line = Line()
    for _ in range(10):
        line.add("a")
        line.serve()
    for _ in range(5):
        line.add("a")
        line.add("b")
    # Else b would be served five times in a row.
    assert [client for client, _ in line.served()][:4] in (list("abab"), list("baba"))


def test_clients_that_are_gone_are_forgotten():
    turns = FairQueue()
    for number in range(10_000):
        turns.advance(turns.start_tag(f"client {number}", 1))
        turns.advance(number)
    assert len(turns._finish_tags) < 200


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 5)), max_size=30))
def test_everything_is_served_and_each_client_in_its_order(asked):
    line = Line()
    for client, rows in asked:
        line.add(client, rows)
    got = line.served()
    for name in "abc":
        wanted = sum(rows for client, rows in asked if client == name)
        assert sum(rows for client, rows in got if client == name) == wanted
