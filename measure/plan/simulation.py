"""Simulate one replica of the server: requests are received, wait, and run in batches."""

import math
import random
from collections import deque
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from functools import partial

import simpy

from server.batching.policy import Batch, CloseReason, Limits, rows_to_wait_for, take, wait_ns

_Process = Generator[simpy.Event, None, None]


@dataclass(frozen=True, slots=True)
class Costs:
    """What a replica spends, in nanoseconds, on requests of one size.

    Receiving takes `receive_ns` a request, one after the other; `answer_ns` is what else a request
    takes that keeps no other waiting. A batch takes `batch_ns`, `row_ns` for each of its rows, and
    `gather_ns` for each row if they are of several requests. That is while the other does nothing:
    while both go on, receiving has `receive_speed` of its speed and executing `execute_speed`.
    Each time that is drawn is spread log-normally about its mean: `spread` is the sigma, of
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
        """Mean time of a batch of so many rows of so many requests, alone."""
        each_ns = self.row_ns + (self.gather_ns if requests > 1 else 0.0)
        return self.batch_ns + each_ns * rows


@dataclass(frozen=True, slots=True)
class Simulated:
    """What came of a simulation: latencies in nanoseconds, in the order of the answers.

    `batch_rows` and `closed` are of every batch.
    """

    latencies_ns: list[float]
    batch_rows: list[int]
    closed: list[CloseReason]


def simulate(
    limits: Limits, costs: Costs, rows: int, due_ns: Iterable[int], seed: int = 0
) -> Simulated:
    """Send requests of so many rows when they are due, and answer them all."""
    env = simpy.Environment()
    replica = _Replica(env, limits, costs, random.Random(seed))

    def arrive() -> _Process:
        for number, at_ns in enumerate(due_ns):
            yield env.timeout(at_ns - env.now)
            # One client's requests are served in the order of their arrival.
            replica.receive(_Request(rows, at_ns, start_tag=number * rows))

    env.process(arrive())
    env.run()
    return replica.seen


@dataclass(eq=False, slots=True)
class _Request:
    """A request, as the scheduling policy knows them; instants are nanoseconds since the start."""

    rows: int
    due_ns: int
    arrived_ns: int = 0
    taken_rows: int = 0
    more_follows: bool = False
    start_tag: int = 0
    key: object = None
    in_place: bool = True


class _Replica:
    """A server that receives one request after the other, while one worker executes batches."""

    def __init__(
        self, env: simpy.Environment, limits: Limits, costs: Costs, drawn: random.Random
    ) -> None:
        self.seen = Simulated([], [], [])
        self._env = env
        self._limits = limits
        self._costs = costs
        self._drawn = drawn
        self._cores = _Cores(env, costs)
        self._incoming: deque[_Request] = deque()
        self._came = env.event()
        self._queue: deque[_Request] = deque()
        self._queued = env.event()
        env.process(self._receive())
        env.process(self._work())

    def receive(self, request: _Request) -> None:
        """Begin to receive a request, once those before it have been."""
        self._incoming.append(request)
        _tell(self._came)

    def _receive(self) -> _Process:
        while True:
            if not self._incoming:
                self._came = self._env.event()
                yield self._came
            yield self._cores.receive(self._drawn_ns(self._costs.receive_ns, self._costs.spread))
            request = self._incoming.popleft()
            request.arrived_ns = int(self._env.now)
            self._queue.append(request)
            _tell(self._queued)

    def _work(self) -> _Process:
        """Do what the server's worker does, by the same policy."""
        enough_rows = self._limits.first_rows
        while True:
            self._queued = self._env.event()
            if not self._queue:
                yield self._queued
                continue
            left_ns, closed = wait_ns(
                self._queue,
                self._limits,
                int(self._env.now),
                enough_rows=enough_rows,
                flush=False,
            )
            if left_ns:
                yield self._queued | self._env.timeout(left_ns)
                continue
            batch = take(self._queue, self._limits, closed)
            enough_rows = rows_to_wait_for(enough_rows, batch, self._limits)
            alone_ns = self._costs.execute_ns(batch.rows, len(batch.pieces))
            yield self._cores.execute(self._drawn_ns(alone_ns, self._costs.spread))
            self._answer(batch)

    def _answer(self, batch: Batch[_Request]) -> None:
        self.seen.batch_rows.append(batch.rows)
        self.seen.closed.append(batch.closed)
        for piece in batch.pieces:
            if piece.stop == piece.request.rows:
                spent_ns = self._env.now - piece.request.due_ns
                answer_ns = self._drawn_ns(self._costs.answer_ns, self._costs.answer_spread)
                self.seen.latencies_ns.append(spent_ns + answer_ns)

    def _drawn_ns(self, mean_ns: float, sigma: float) -> float:
        return mean_ns * self._drawn.lognormvariate(-sigma * sigma / 2, sigma) if sigma else mean_ns


class _Cores:
    """What receiving and executing have in common: each slows the other down."""

    def __init__(self, env: simpy.Environment, costs: Costs) -> None:
        self._env = env
        # What is left of each in nanoseconds, if it had no company; inf while it does nothing.
        self._left_ns = [math.inf, math.inf]
        self._slowed = (costs.receive_speed, costs.execute_speed)
        self._speeds = [1.0, 1.0]
        self._done = [env.event(), env.event()]
        self._since_ns = 0.0
        self._changes = 0

    def receive(self, alone_ns: float) -> simpy.Event:
        """Begin to receive a request; the event comes when it is there."""
        return self._begin(0, alone_ns)

    def execute(self, alone_ns: float) -> simpy.Event:
        """Begin to execute a batch; the event comes when it is done."""
        return self._begin(1, alone_ns)

    def _begin(self, which: int, alone_ns: float) -> simpy.Event:
        done = self._done[which] = self._env.event()
        self._change(which, alone_ns)
        return done

    def _change(self, which: int, left_ns: float) -> None:
        """Let one begin or end, and foresee which ends first if nothing else begins before."""
        now_ns = self._env.now
        for one in (0, 1):
            self._left_ns[one] -= (now_ns - self._since_ns) * self._speeds[one]
        self._since_ns = now_ns
        self._left_ns[which] = left_ns
        self._changes += 1
        both = math.isfinite(self._left_ns[0]) and math.isfinite(self._left_ns[1])
        self._speeds = list(self._slowed) if both else [1.0, 1.0]
        ends_ns = [left / speed for left, speed in zip(self._left_ns, self._speeds, strict=True)]
        first = 0 if ends_ns[0] <= ends_ns[1] else 1
        if math.isfinite(ends_ns[first]):
            timeout = self._env.timeout(max(ends_ns[first], 0.0))
            timeout.callbacks.append(partial(self._end, first, self._changes))

    def _end(self, which: int, changes: int, _: simpy.Event) -> None:
        if changes == self._changes:  # else something began meanwhile, and it was foreseen anew
            self._change(which, math.inf)
            self._done[which].succeed()


def _tell(event: simpy.Event) -> None:
    if not event.triggered:
        event.succeed()
