"""Drive a sender in a closed or an open loop, and yield the results slice by slice."""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Protocol

from client.errors import RequestFailed
from measure.core.stages import RequestTimes, Stages
from measure.engine.pace import Pace
from measure.engine.senders import Outcome, Sender, decoded
from measure.engine.slice import Slice
from protos.codec import InferResponse

# Called with an answer and the number of its request; adds the answer's rows and wrong labels to a
# slice, and returns the stages that it reports, or the failure that it is. The nanoseconds are the
# latency and the time since the request was sent.
Judge = Callable[[Slice, int, InferResponse, int, int], Stages | RequestFailed | None]


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


class Log(Protocol):
    """Keeps what became of each request."""

    def ended(
        self, slice_number: int, item: Completion, judged: Stages | RequestFailed | None
    ) -> None:
        """Keep a request that ended, with the number of the slice that counts it.

        `judged`: how it failed, or the stages that its answer reports, None without them.
        """

    def unanswered(self, slice_number: int, number: int, intended_ns: int, sent_ns: int) -> None:
        """Keep a request that had no answer when the load ended."""


class Traffic:
    """One load on one sender.

    A closed loop sends when an answer arrives, and counts latency from the send; an open loop sends
    when a request is due, regardless of answers, and counts latency from when it was due. An open
    loop has at most `most_under_way` requests in flight; the others wait here, and their waiting
    counts. `due_ns` is the schedule of an open loop that has one: nanoseconds since the start. With
    `each_server` the slices have the part of each server.
    """

    def __init__(
        self,
        sender: Sender,
        judge: Judge,
        inbox: Inbox,
        run: int,
        pace: Pace,
        most_under_way: int,
        due_ns: Sequence[int] | None = None,
        log: Log | None = None,
        *,
        each_server: bool = False,
    ) -> None:
        self._sender = sender
        self._judge = judge
        self._inbox = inbox
        self._run = run
        self._pace = pace
        self._open = pace.rate_per_s is not None
        self._most_under_way = most_under_way
        self._due_ns = due_ns
        self._log = log
        self._each_server = each_server
        # Intended and actual send times of requests without an answer, for the log.
        self._unlogged: dict[int, tuple[int, int]] = {}
        # Instants from which on an answer ends a slot of a closed loop.
        self._slot_ends_ns: deque[int] = deque()
        # Intended send times of requests that can be sent now.
        self._ready: deque[int] = deque()
        self._unread: deque[Completion] = deque()
        self._started = self._done = self._sum_start_ns = self._sum_done_ns = 0
        self._slice_number = 0
        self._all_sent = self._stopped = False
        self.ended = False

    def slices(self, times: Times, patience_s: float) -> Iterator[Slice]:
        """Generate load until stopped.

        The last slice holds requests that ended after the previous one; `left_behind` counts
        requests without an answer when the load was stopped, for which it waits `patience_s`.
        """
        schedule = self._schedule(times)
        next_due_ns = next(schedule, None)
        boundary_ns = times.start_ns + times.warm_up_ns
        area_ns = 0
        self._slice = Slice(times.start_ns, times.start_ns)
        while True:
            now_ns = time.perf_counter_ns()
            all_sent = self._is_all_sent(next_due_ns)
            if now_ns >= boundary_ns or all_sent:
                stopped = self._handle_all()
                end_ns = time.perf_counter_ns()
                new_area_ns = self._area_ns(end_ns)
                self._slice.end_ns, self._slice.in_flight_area_ns = end_ns, new_area_ns - area_ns
                yield self._slice
                area_ns = new_area_ns
                self._all_sent |= all_sent
                boundary_ns += 0 if all_sent else times.slice_ns
                self._slice = Slice(end_ns, end_ns)
                self._slice_number += 1
                if stopped:
                    break
            while next_due_ns is not None and next_due_ns <= now_ns:
                self._ready.append(next_due_ns)
                self._slice.due += 1
                next_due_ns = next(schedule, None)
            self._send_ready()
            if self._is_all_sent(next_due_ns):
                continue
            wake_ns = boundary_ns if next_due_ns is None else min(boundary_ns, next_due_ns)
            if not self._handle(wake_ns):
                break
        self._drain(patience_s)
        self.ended = True
        yield self._slice

    def _is_all_sent(self, next_due_ns: int | None) -> bool:
        """Whether all requests of a schedule are sent, until that has ended a slice.

        It does, so that the time until the next boundary is not measured, too.
        """
        if self._due_ns is None or self._all_sent or not self._slice_number:
            return False
        return next_due_ns is None and not self._ready

    def _schedule(self, times: Times) -> Iterator[int]:
        warm_up_s = times.warm_up_ns / 1e9
        if not self._open:
            begin_ns, self._slot_ends_ns = self._pace.slots_ns(times.start_ns, warm_up_s)
            return begin_ns
        offsets_ns = self._pace.due_ns(warm_up_s, self._due_ns)
        return (times.start_ns + offset_ns for offset_ns in offsets_ns)

    def _send_ready(self) -> None:
        while self._ready and self._started - self._done < self._most_under_way:
            intended_ns = self._ready.popleft()
            sent_ns = time.perf_counter_ns()
            self._slice.send(sent_ns - intended_ns)
            number = self._started
            self._started += 1
            self._sum_start_ns += intended_ns if self._open else sent_ns
            if self._log is not None:
                self._unlogged[number] = intended_ns, sent_ns

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
        if not self._open and not self._stopped and not self._slot_ends(item.done_ns):
            self._ready.append(item.done_ns)
            self._slice.due += 1
            self._send_ready()
        self._unread.append(item)
        return True

    def _slot_ends(self, now_ns: int) -> bool:
        """Whether a ramp of a closed loop ends a slot instead of sending again."""
        ends = bool(self._slot_ends_ns) and self._slot_ends_ns[0] <= now_ns
        if ends:
            self._slot_ends_ns.popleft()
        return ends

    def _read(self, item: Completion) -> None:
        """Decode an answer, and count it."""
        received_ns = time.perf_counter_ns()
        answer = decoded(item.outcome)
        self._slice.decode_ns += time.perf_counter_ns() - received_ns
        start_ns = item.intended_ns if self._open else item.sent_ns
        before = self._slice.rows, self._slice.wrong_labels
        judged: Stages | RequestFailed | None
        if isinstance(answer, RequestFailed):
            self._slice.fail(answer, item.done_ns - start_ns)
            judged = answer
        else:
            if item.times is not None:
                self._slice.decode_ns += item.times.decode_ns
                self._slice.client_times(item.times.send_ns, item.times.receive_ns)
            judged = self._judge(
                self._slice,
                item.number,
                answer,
                item.done_ns - start_ns,
                item.done_ns - item.sent_ns,
            )
        if self._each_server and item.times is not None:
            part = self._slice.lost(item.times)
            if isinstance(judged, RequestFailed):
                part.errors[judged.code] += 1
            else:
                part.latency.record(item.done_ns - start_ns)
                part.rows += self._slice.rows - before[0]
            part.wrong_labels += self._slice.wrong_labels - before[1]
        self._keep(item, judged)

    def _keep(self, item: Completion, judged: Stages | RequestFailed | None) -> None:
        if self._log is not None:
            self._unlogged.pop(item.number, None)
            self._log.ended(self._slice_number, item, judged)

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
            unanswered = self._started - self._done
            self._slice.errors["DEADLINE_EXCEEDED"] += unanswered
            if self._each_server:
                self._slice.of_server("").errors["DEADLINE_EXCEEDED"] += unanswered
        if self._log is not None:
            for number, instants_ns in self._unlogged.items():
                self._log.unanswered(self._slice_number, number, *instants_ns)
        self._slice.end_ns = time.perf_counter_ns()
