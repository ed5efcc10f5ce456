"""Statistics of one model version, for ModelStatistics."""

import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from server.batching.policy import CloseReason


@dataclass(slots=True)
class Duration:
    """A count with the total time."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int) -> None:
        """Count one more."""
        self.count += 1
        self.ns += ns


@dataclass(slots=True)
class BatchSizeStatistics:
    """Time of the batches of one size."""

    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)


@dataclass(slots=True)
class Counts:
    """Counts since the model was loaded.

    `succeeded`: answered requests, with the total of their times and of the stages in them.
    """

    last_inference_ms: int = 0
    inference_rows: int = 0
    executions: int = 0
    succeeded: int = 0
    total_ns: int = 0
    queue_ns: int = 0
    input_ns: int = 0
    infer_ns: int = 0
    output_ns: int = 0
    fail: Duration = field(default_factory=Duration)
    # Of messages whose first byte was seen, and of answers that the kernel has.
    receive: Duration = field(default_factory=Duration)
    send: Duration = field(default_factory=Duration)
    batches: dict[int, BatchSizeStatistics] = field(default_factory=dict)
    closed: Counter[CloseReason] = field(default_factory=Counter)


class Statistics:
    """Counts behind a lock; `read` runs a function on them while nothing changes."""

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
    ) -> None:
        """Count one request answered, with its stages; `receive_ns` came before `total_ns`."""
        with self._lock:
            counts = self._counts
            counts.succeeded += 1
            counts.total_ns += total_ns
            counts.queue_ns += queue_ns
            counts.input_ns += input_ns
            counts.infer_ns += infer_ns
            counts.output_ns += output_ns
            if receive_ns is not None:
                counts.receive.add(receive_ns)

    def sent(self, send_ns: int) -> None:
        """Count an answer that the kernel has, `send_ns` after it was ready."""
        with self._lock:
            self._counts.send.add(send_ns)

    def failed(self, total_ns: int) -> None:
        """Count one request that got an error."""
        with self._lock:
            self._counts.fail.add(total_ns)
