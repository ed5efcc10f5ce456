"""Drive a sender in a closed or an open loop, and yield the results slice by slice."""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue

from client.errors import RequestFailed
from measure.core.stages import RequestTimes
from measure.engine.arrivals import Arrivals, due_times_ns
from measure.engine.senders import Outcome, Sender, decoded
from measure.engine.slice import Slice
from protos.codec import InferResponse

# Called with an answer and the number of its request; adds the answer's rows and wrong labels to a
# slice. The nanoseconds are the latency and the time since the request was sent.
Judge = Callable[[Slice, int, InferResponse, int, int], None]


@dataclass(frozen=True, slots=True)
class Pace:
    """A number of requests in flight, or a rate per second; `among` gives a process's part."""

    concurrency: int | None = None
    rate_per_s: float | None = None
    arrivals: Arrivals = "constant"
    seed: int = 0
    part: int = 0
    parts: int = 1

    def among(self, parts: int) -> list["Pace"]:
        """Divide it among so many processes."""
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
    """When a load starts (time.perf_counter_ns), and the length of its slices.

    The first slice is the warm-up. All processes on a machine read the same clock.
    """

    start_ns: int
    warm_up_ns: int
    slice_ns: int


@dataclass(frozen=True, slots=True)
class Completion:
    """A completed request: its number, instants, outcome, and the client's times of an answer.

    `run` identifies its load.
    """

    run: int
    number: int
    intended_ns: int
    sent_ns: int
    done_ns: int
    outcome: Outcome
    times: RequestTimes | None


class Stop:
    """Ends the load when put into the inbox."""


Inbox = SimpleQueue[Completion | Stop]


class Traffic:
    """One load on one sender.

    A closed loop sends when an answer arrives, and counts latency from the send; an open loop sends
    when a request is due, regardless of answers, and counts latency from when it was due. An open
    loop has at most `most_under_way` requests in flight; the others wait here, and their waiting
    counts.
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
        # Intended send times of requests that can be sent now.
        self._ready: deque[int] = deque()
        self._unread: deque[Completion] = deque()
        self._started = self._done = self._sum_start_ns = self._sum_done_ns = 0
        self._stopped = False
        self.ended = False

    def slices(self, times: Times, patience_s: float) -> Iterator[Slice]:
        """Generate load until stopped.

        The last slice holds requests that ended after the previous one; `left_behind` counts
        requests without an answer when the load was stopped, for which it waits `patience_s`.
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
                times: RequestTimes | None = None,
                of: tuple[int, int, int] = (number, intended_ns, sent_ns),
            ) -> None:
                self._inbox.put(Completion(self._run, *of, done_ns, outcome, times))

            self._sender.send(number, done)

    def _handle(self, until_ns: int) -> bool:
        """Handle one event or decode one answer, waiting up to an instant; False to stop."""
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
        """Handle and decode everything that is queued; return whether to stop."""
        stopped = False
        with contextlib.suppress(Empty):
            while True:
                stopped |= not self._take(self._inbox.get_nowait())
        while self._unread:
            self._read(self._unread.popleft())
        return stopped

    def _take(self, item: Completion | Stop) -> bool:
        """Release the next request for a completed one; return whether to go on."""
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
        self._slice.decode_ns += time.perf_counter_ns() - received_ns
        start_ns = item.intended_ns if self._open else item.sent_ns
        if isinstance(answer, RequestFailed):
            self._slice.fail(answer, item.done_ns - start_ns)
            return
        if item.times is not None:
            self._slice.decode_ns += item.times.decode_ns
            self._slice.client_times(item.times.send_ns, item.times.receive_ns)
        self._judge(
            self._slice,
            item.number,
            answer,
            item.done_ns - start_ns,
            item.done_ns - item.sent_ns,
        )

    def _area_ns(self, now_ns: int) -> int:
        """Requests in flight, integrated over the time since the start."""
        under_way = self._started - self._done
        return now_ns * under_way - self._sum_start_ns + self._sum_done_ns

    def _drain(self, patience_s: float) -> None:
        """Wait for requests in flight; those without an answer then have missed their deadline."""
        waiting = len(self._ready) if self._open else 0
        self._slice.left_behind = self._started - self._done + waiting
        until_ns = time.perf_counter_ns() + int(patience_s * 1e9)
        while self._started > self._done and time.perf_counter_ns() < until_ns:
            self._handle(until_ns)
        self._handle_all()
        if self._started > self._done:
            self._slice.errors["DEADLINE_EXCEEDED"] += self._started - self._done
        self._slice.end_ns = time.perf_counter_ns()
