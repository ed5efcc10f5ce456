"""Drive a sender in a closed or an open loop, and say slice by slice what came of it."""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue

from client.errors import RequestFailed
from measure.engine.arrivals import Arrivals, due_times_ns
from measure.engine.senders import Outcome, Sender, decoded
from measure.engine.slice import Slice
from protos.codec import InferResponse

# Gets an answer and the number of its request; adds to a slice the rows it brought and what of
# them is wrong. The nanoseconds are the latency and the time since the request was sent.
Judge = Callable[[Slice, int, InferResponse, int, int], None]


@dataclass(frozen=True, slots=True)
class Pace:
    """So many requests under way, or so many a second; of all, where it is a process's part."""

    concurrency: int | None = None
    rate_per_s: float | None = None
    arrivals: Arrivals = "constant"
    seed: int = 0
    part: int = 0
    parts: int = 1

    def among(self, parts: int) -> list["Pace"]:
        """The parts that so many processes have in it."""
        shares: list[int | None] = [None] * parts
        if self.concurrency is not None:
            whole, rest = divmod(self.concurrency, parts)
            shares = [whole + (part < rest) for part in range(parts)]
        return [
            replace(self, concurrency=share, part=part, parts=parts)
            for part, share in enumerate(shares)
        ]


@dataclass(frozen=True, slots=True)
class Times:
    """When a load starts (time.perf_counter_ns), and how long its slices are.

    The first slice is the warm-up. All processes of a machine read the same clock.
    """

    start_ns: int
    warm_up_ns: int
    slice_ns: int


@dataclass(frozen=True, slots=True)
class Completion:
    """A request that ended: its number, its instants, its outcome, what decoding took so far.

    `run` says of which load it is.
    """

    run: int
    number: int
    intended_ns: int
    sent_ns: int
    done_ns: int
    outcome: Outcome
    receive_ns: int


class Stop:
    """Put into the inbox, it ends the load."""


Inbox = SimpleQueue[Completion | Stop]


class Traffic:
    """One load on one sender.

    A closed loop sends when an answer came, and times from then on; an open loop sends when a
    request is due, whatever was answered, and times from when it was due. Of an open loop at most
    `most_under_way` requests are under way; the others wait here, and their time counts.
    """

    def __init__(
        self, sender: Sender, judge: Judge, inbox: Inbox, run: int, pace: Pace, most_under_way: int
    ) -> None:
        self._sender = sender
        self._judge = judge
        self._inbox = inbox
        self._run = run
        self._pace = pace
        self._open = pace.rate_per_s is not None
        self._most_under_way = most_under_way
        # Intended send times of what can be sent now.
        self._ready: deque[int] = deque()
        self._unread: deque[Completion] = deque()
        self._started = self._done = self._sum_start_ns = self._sum_done_ns = 0
        self._stopped = False
        self.ended = False

    def slices(self, times: Times, patience_s: float) -> Iterator[Slice]:
        """Load until told to stop.

        The last slice holds what ended after the one before; `left_behind` counts what had no
        answer when the load was told to stop, for which it waits `patience_s`.
        """
        schedule = self._schedule(times.start_ns)
        next_due_ns = next(schedule, None)
        boundary_ns = times.start_ns + times.warm_up_ns
        area_ns = 0
        self._slice = Slice(times.start_ns, times.start_ns)
        while True:
            now_ns = time.perf_counter_ns()
            if now_ns >= boundary_ns:
                stopped = self._handle_all()
                end_ns = time.perf_counter_ns()
                new_area_ns = self._area_ns(end_ns)
                self._slice.end_ns, self._slice.in_flight_area_ns = end_ns, new_area_ns - area_ns
                yield self._slice
                area_ns, boundary_ns = new_area_ns, boundary_ns + times.slice_ns
                self._slice = Slice(end_ns, end_ns)
                if stopped:
                    break
            while next_due_ns is not None and next_due_ns <= now_ns:
                self._ready.append(next_due_ns)
                self._slice.due += 1
                next_due_ns = next(schedule, None)
            self._send_ready()
            wake_ns = boundary_ns if next_due_ns is None else min(boundary_ns, next_due_ns)
            if not self._handle(wake_ns):
                break
        self._drain(patience_s)
        self.ended = True
        yield self._slice

    def _schedule(self, start_ns: int) -> Iterator[int]:
        pace = self._pace
        if pace.rate_per_s is None:
            return iter([start_ns] * (pace.concurrency or 0))
        offsets = due_times_ns(pace.arrivals, pace.rate_per_s, pace.seed, pace.part, pace.parts)
        return (start_ns + offset_ns for offset_ns in offsets)

    def _send_ready(self) -> None:
        while self._ready and self._started - self._done < self._most_under_way:
            intended_ns = self._ready.popleft()
            sent_ns = time.perf_counter_ns()
            self._slice.send(sent_ns - intended_ns)
            number = self._started
            self._started += 1
            self._sum_start_ns += intended_ns if self._open else sent_ns

            def done(
                outcome: Outcome,
                done_ns: int,
                receive_ns: int = 0,
                of: tuple[int, int, int] = (number, intended_ns, sent_ns),
            ) -> None:
                self._inbox.put(Completion(self._run, *of, done_ns, outcome, receive_ns))

            self._sender.send(number, done)
            self._slice.send_ns += time.perf_counter_ns() - sent_ns

    def _handle(self, until_ns: int) -> bool:
        """Take or read one thing, waiting for it until an instant; whether to go on."""
        if len(self._unread) >= max(self._most_under_way, 1):
            self._read(self._unread.popleft())
        try:
            if self._unread:
                return self._take(self._inbox.get_nowait())
            return self._take(
                self._inbox.get(timeout=max(until_ns - time.perf_counter_ns(), 0) / 1e9)
            )
        except Empty:
            if self._unread:
                self._read(self._unread.popleft())
            return True

    def _handle_all(self) -> bool:
        """Take and read what is there; whether to stop."""
        stopped = False
        with contextlib.suppress(Empty):
            while True:
                stopped |= not self._take(self._inbox.get_nowait())
        while self._unread:
            self._read(self._unread.popleft())
        return stopped

    def _take(self, item: Completion | Stop) -> bool:
        """Let the next request go for one that ended; whether to go on."""
        if isinstance(item, Stop):
            self._stopped = True
            return False
        if item.run != self._run:
            return True  # an earlier load stopped waiting for it
        self._done += 1
        self._sum_done_ns += item.done_ns
        if not self._open and not self._stopped:
            self._ready.append(item.done_ns)
            self._slice.due += 1
            self._send_ready()
        self._unread.append(item)
        return True

    def _read(self, item: Completion) -> None:
        """Decode an answer, and count it."""
        received_ns = time.perf_counter_ns()
        answer = decoded(item.outcome)
        self._slice.receive_ns += item.receive_ns + time.perf_counter_ns() - received_ns
        start_ns = item.intended_ns if self._open else item.sent_ns
        if isinstance(answer, RequestFailed):
            self._slice.fail(answer, item.done_ns - start_ns)
            return
        self._judge(
            self._slice,
            item.number,
            answer,
            item.done_ns - start_ns,
            item.done_ns - item.sent_ns,
        )

    def _area_ns(self, now_ns: int) -> int:
        """Requests under way, integrated over the time since the start."""
        under_way = self._started - self._done
        return now_ns * under_way - self._sum_start_ns + self._sum_done_ns

    def _drain(self, patience_s: float) -> None:
        """Wait for what is under way; what does not come has missed its deadline."""
        waiting = len(self._ready) if self._open else 0
        self._slice.left_behind = self._started - self._done + waiting
        until_ns = time.perf_counter_ns() + int(patience_s * 1e9)
        while self._started > self._done and time.perf_counter_ns() < until_ns:
            self._handle(until_ns)
        self._handle_all()
        if self._started > self._done:
            self._slice.errors["DEADLINE_EXCEEDED"] += self._started - self._done
        self._slice.end_ns = time.perf_counter_ns()
