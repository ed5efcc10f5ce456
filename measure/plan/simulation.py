"""Simulate one replica of the server: requests are received, wait, and run in batches."""

import math
import random
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from server.batching.policy import Batch, CloseReason, Limits, rows_to_wait_for, take, wait_ns


@dataclass(frozen=True, slots=True)
class Costs:
    """A replica's costs, in nanoseconds, for requests of one size.

    Receiving takes `receive_ns` per request, one after the other; `answer_ns` is the rest of a
    request's time, which blocks no other request. A batch takes `batch_ns`, `row_ns` per row, and
    `gather_ns` per row if the rows belong to several requests. These hold while only one of the two
    runs: while both run, receiving has `receive_speed` of its speed and execution `execute_speed`.
    Times are drawn from log-normal distributions with these means; the sigma is `spread`, for
    `answer_ns` it is `answer_spread`.
    """

    receive_ns: float
    answer_ns: float
    batch_ns: float
    row_ns: float
    gather_ns: float = 0.0
    receive_speed: float = 1.0
    execute_speed: float = 1.0
    spread: float = 0.0
    answer_spread: float = 0.0

    def execute_ns(self, rows: int, requests: int) -> float:
        """Mean time of a batch of so many rows from so many requests, while nothing else runs."""
        each_ns = self.row_ns + (self.gather_ns if requests > 1 else 0.0)
        return self.batch_ns + each_ns * rows


@dataclass(frozen=True, slots=True)
class Simulated:
    """Results of a simulation: latencies in nanoseconds, in the order of the answers.

    `batch_rows` and `closed` have one value per batch.
    """

    latencies_ns: list[float]
    batch_rows: list[int]
    closed: list[CloseReason]


def simulate(
    limits: Limits, costs: Costs, rows: int, due_ns: Iterable[int], seed: int = 0
) -> Simulated:
    """Send requests of so many rows when they are due, until all are answered."""
    replica = _Replica(limits, costs, random.Random(seed))
    for number, at_ns in enumerate(due_ns):
        replica.run_until(at_ns)
        # Requests of one client are served in order of arrival.
        replica.arrive(_Request(rows, at_ns, start_tag=number * rows))
    replica.run_until(math.inf)
    return replica.seen


@dataclass(eq=False, slots=True)
class _Request:
    """A request as the batching policy sees it; instants are nanoseconds since the start."""

    rows: int
    due_ns: int
    arrived_ns: int = 0
    taken_rows: int = 0
    more_follows: bool = False
    start_tag: int = 0
    key: object = None
    in_place: bool = True


_RECEIVE, _EXECUTE = 0, 1


class _Replica:
    """A server that receives one request at a time, while one worker executes batches.

    Time moves from event to event: a request arrives, a request is received, a batch ends, the
    worker's wait ends. A fit simulates millions of requests, so the events are four numbers, not
    objects of a simulator.
    """

    def __init__(self, limits: Limits, costs: Costs, drawn: random.Random) -> None:
        self.seen = Simulated([], [], [])
        self._limits = limits
        self._costs = costs
        self._drawn = drawn
        self._incoming: deque[_Request] = deque()
        self._queue: deque[_Request] = deque()
        self._batch: Batch[_Request] | None = None
        self._enough_rows = limits.first_rows
        self._now_ns = 0.0
        self._wake_ns = math.inf
        # For receiving and executing each: remaining work, current speed, end.
        self._left_ns = [math.inf, math.inf]
        self._speeds = [1.0, 1.0]
        self._end_ns = [math.inf, math.inf]
        self._since_ns = 0.0

    def run_until(self, end_ns: float) -> None:
        """Process all events before `end_ns`."""
        while True:
            received_ns, executed_ns = self._end_ns
            at_ns = min(received_ns, executed_ns, self._wake_ns)
            if at_ns > end_ns or at_ns == math.inf:
                return
            self._now_ns = at_ns
            if at_ns == received_ns:
                self._received()
            elif at_ns == executed_ns:
                self._executed()
            else:
                self._work()

    def arrive(self, request: _Request) -> None:
        """Add a request that is due now; it is received after the earlier ones."""
        self._now_ns = request.due_ns
        self._incoming.append(request)
        if len(self._incoming) == 1:
            self._receive()

    def _receive(self) -> None:
        self._change(_RECEIVE, self._drawn_ns(self._costs.receive_ns, self._costs.spread))

    def _received(self) -> None:
        self._change(_RECEIVE, math.inf)
        request = self._incoming.popleft()
        request.arrived_ns = int(self._now_ns)
        self._queue.append(request)
        if self._incoming:
            self._receive()
        if self._batch is None:
            self._work()

    def _work(self) -> None:
        """Act as the server's idle worker does, by the same policy."""
        self._wake_ns = math.inf
        if not self._queue:
            return
        left_ns, closed = wait_ns(
            self._queue,
            self._limits,
            int(self._now_ns),
            enough_rows=self._enough_rows,
            flush=False,
        )
        if left_ns:
            self._wake_ns = self._now_ns + left_ns
            return
        batch = self._batch = take(self._queue, self._limits, closed)
        self._enough_rows = rows_to_wait_for(self._enough_rows, batch, self._limits)
        alone_ns = self._costs.execute_ns(batch.rows, len(batch.pieces))
        self._change(_EXECUTE, self._drawn_ns(alone_ns, self._costs.spread))

    def _executed(self) -> None:
        self._change(_EXECUTE, math.inf)
        batch, self._batch = self._batch, None
        assert batch is not None
        self.seen.batch_rows.append(batch.rows)
        self.seen.closed.append(batch.closed)
        for piece in batch.pieces:
            if piece.stop == piece.request.rows:
                spent_ns = self._now_ns - piece.request.due_ns
                answer_ns = self._drawn_ns(self._costs.answer_ns, self._costs.answer_spread)
                self.seen.latencies_ns.append(spent_ns + answer_ns)
        self._work()

    def _change(self, which: int, left_ns: float) -> None:
        """Start receiving or executing with so much work, or end it with inf.

        Each slows the other down while both run.
        """
        left, speeds = self._left_ns, self._speeds
        past_ns, self._since_ns = self._now_ns - self._since_ns, self._now_ns
        left[_RECEIVE] -= past_ns * speeds[_RECEIVE]
        left[_EXECUTE] -= past_ns * speeds[_EXECUTE]
        left[which] = left_ns
        if left[_RECEIVE] < math.inf and left[_EXECUTE] < math.inf:
            speeds[:] = self._costs.receive_speed, self._costs.execute_speed
        else:
            speeds[:] = 1.0, 1.0
        for one in (_RECEIVE, _EXECUTE):
            self._end_ns[one] = self._now_ns + max(left[one] / speeds[one], 0.0)

    def _drawn_ns(self, mean_ns: float, sigma: float) -> float:
        return mean_ns * self._drawn.lognormvariate(-sigma * sigma / 2, sigma) if sigma else mean_ns
