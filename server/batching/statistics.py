"""Statistics of one model version, for ModelStatistics and for metrics."""

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

from server.batching.policy import CloseReason

# Every duration of less than 2**63 ns has a bucket.
_BUCKETS = 64


class FailReason(StrEnum):
    """Why a request failed, in Triton's words."""

    REJECTED = "REJECTED"  # a limit was reached: of the queue, of the time in it, of bytes
    CANCELED = "CANCELED"  # nobody waits for the answer: cancelled, or past its deadline
    BACKEND = "BACKEND"  # the model failed
    OTHER = "OTHER"  # the request does not fit the model


@dataclass(slots=True)
class Duration:
    """A count with the total time."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int) -> None:
        """Count one more."""
        self.count += 1
        self.ns += ns

    def merge(self, other: "Duration") -> None:
        """Count what `other` has counted."""
        self.count += other.count
        self.ns += other.ns


class Histogram:
    """Durations, counted in buckets whose upper bounds double."""

    __slots__ = ("buckets", "first_ns", "ns")

    def __init__(self, first_ns: int) -> None:
        """`first_ns`: the upper bound of the first bucket, which is part of it."""
        self.first_ns = first_ns
        self.buckets = [0] * _BUCKETS
        self.ns = 0

    @property
    def count(self) -> int:
        """Number of durations."""
        return sum(self.buckets)

    def add(self, ns: int) -> None:
        """Count one more."""
        # No search: the number of doublings is a number of bits.
        self.buckets[((ns - 1) // self.first_ns).bit_length() if ns > 0 else 0] += 1
        self.ns += ns

    def merge(self, other: "Histogram") -> None:
        """Count what `other` has counted, which has the same buckets."""
        for place, count in enumerate(other.buckets):
            self.buckets[place] += count
        self.ns += other.ns

    def cumulative(self, last_ns: int) -> list[tuple[int, int]]:
        """Upper bounds in ns, up to `last_ns`, each with the durations up to it."""
        found = []
        bound_ns, count = self.first_ns, 0
        for more in self.buckets:
            if bound_ns > last_ns:
                break
            count += more
            found.append((bound_ns, count))
            bound_ns *= 2
        return found


@dataclass(slots=True)
class BatchSizeStatistics:
    """Time of the batches of one size."""

    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)


def _request_times() -> Histogram:
    return Histogram(500_000)


def _stage_times() -> Histogram:
    # Stages of small requests are short.
    return Histogram(31_250)


@dataclass(slots=True)
class Counts:
    """Counts since the model was loaded.

    `unary` and `streamed`: times of answered requests; the stages are parts of these.
    """

    last_inference_ms: int = 0
    inference_rows: int = 0
    executions: int = 0
    unary: Histogram = field(default_factory=_request_times)
    streamed: Histogram = field(default_factory=_request_times)
    queue: Histogram = field(default_factory=_stage_times)
    compute_input: Histogram = field(default_factory=_stage_times)
    compute_infer: Histogram = field(default_factory=_stage_times)
    compute_output: Histogram = field(default_factory=_stage_times)
    # Of messages whose first byte was seen, and of answers that the kernel has.
    receive: Histogram = field(default_factory=_stage_times)
    send: Histogram = field(default_factory=_stage_times)
    fail: Duration = field(default_factory=Duration)
    fail_reasons: Counter[FailReason] = field(default_factory=Counter)
    batches: dict[int, BatchSizeStatistics] = field(default_factory=dict)
    closed: Counter[CloseReason] = field(default_factory=Counter)

    @property
    def succeeded(self) -> int:
        """Answered requests."""
        return self.unary.count + self.streamed.count

    @property
    def total_ns(self) -> int:
        """Time of all answered requests."""
        return self.unary.ns + self.streamed.ns

    @property
    def stages(self) -> dict[str, Histogram]:
        """Times of the stages of answered requests, by name, in the order of their course."""
        return {
            "receive": self.receive,
            "queue": self.queue,
            "compute_input": self.compute_input,
            "compute_infer": self.compute_infer,
            "compute_output": self.compute_output,
            "send": self.send,
        }

    def merge(self, other: "Counts") -> None:
        """Count what `other` has counted."""
        self.last_inference_ms = max(self.last_inference_ms, other.last_inference_ms)
        self.inference_rows += other.inference_rows
        self.executions += other.executions
        self.unary.merge(other.unary)
        self.streamed.merge(other.streamed)
        for name, stage in self.stages.items():
            stage.merge(other.stages[name])
        self.fail.merge(other.fail)
        self.fail_reasons.update(other.fail_reasons)
        for rows, batch in other.batches.items():
            own = self.batches.setdefault(rows, BatchSizeStatistics())
            own.compute_input.merge(batch.compute_input)
            own.compute_infer.merge(batch.compute_infer)
        self.closed.update(other.closed)


class Statistics:
    """Counts behind a lock, to be held by those who read them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = Counts()

    @property
    def lock(self) -> threading.Lock:
        """The lock to hold while reading `counts`."""
        return self._lock

    @property
    def counts(self) -> Counts:
        """The counts, to be read under `lock`."""
        return self._counts

    def executed(self, rows: int, closed: CloseReason, assemble_ns: int, compute_ns: int) -> None:
        """Count one execution of the model."""
        with self._lock:
            counts = self._counts
            counts.executions += 1
            counts.inference_rows += rows
            counts.last_inference_ms = time.time_ns() // 1_000_000
            counts.closed[closed] += 1
            batch = counts.batches.setdefault(rows, BatchSizeStatistics())
            batch.compute_input.add(assemble_ns)
            batch.compute_infer.add(compute_ns)

    def succeeded(
        self,
        total_ns: int,
        queue_ns: int,
        input_ns: int,
        infer_ns: int,
        output_ns: int,
        receive_ns: int | None,
        *,
        streamed: bool = False,
    ) -> None:
        """Count one request answered, with its stages; `receive_ns` came before `total_ns`."""
        with self._lock:
            counts = self._counts
            (counts.streamed if streamed else counts.unary).add(total_ns)
            counts.queue.add(queue_ns)
            counts.compute_input.add(input_ns)
            counts.compute_infer.add(infer_ns)
            counts.compute_output.add(output_ns)
            if receive_ns is not None:
                counts.receive.add(receive_ns)

    def sent(self, send_ns: int) -> None:
        """Count an answer that the kernel has, `send_ns` after it was ready."""
        with self._lock:
            self._counts.send.add(send_ns)

    def failed(self, total_ns: int, reason: FailReason) -> None:
        """Count one request that got an error."""
        with self._lock:
            counts = self._counts
            counts.fail.add(total_ns)
            counts.fail_reasons[reason] += 1
