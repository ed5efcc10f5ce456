"""Queue requests for one model and run them in batches.

This is the one queue: for unary and streamed requests, and for tensors in shared memory.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.batching.batch_buffer import Assembled, BatchBuffer
from server.batching.fair_queue import FairQueue
from server.batching.handover import answers_together
from server.batching.near_ties import any_near_tie
from server.batching.policy import (
    Batch,
    CloseReason,
    Limits,
    Piece,
    place,
    rows_to_wait_for,
    take,
    wait_ns,
)
from server.batching.request import Request, Timings
from server.batching.statistics import Statistics
from server.errors import InvalidInput, ModelBroken, QueueFull, ServerStopping, ServingError
from server.onnx.engine import Engine

_log = logging.getLogger(__name__)
_NEVER_NS = 2**63


class Scheduler:
    """The queue of one engine, with one worker thread.

    Clients share it fairly; requests of one client run in order. One thread, because the slices of
    a large request must end in order, and because an execution uses every core already: a second
    worker gained nothing when measured.
    """

    def __init__(
        self,
        name: str,
        engine: Engine,
        limits: Limits,
        statistics: Statistics,
        *,
        batched: bool = True,
        most_requests: int = 0,
        finite_only: bool = False,
        fixed: bool = False,
    ) -> None:
        """`batched`: outputs have one row per row of the inputs.

        `most_requests`: how many may wait, 0 for any number. `finite_only`: reject NaN and
        infinite values read from shared memory. `fixed`: pad every execution to `group_rows`,
        which slices must not exceed.
        """
        self._engine = engine
        self._limits = limits
        self._batched = batched
        self._most_requests = most_requests
        self._finite_only = finite_only
        self._fixed = fixed
        self._statistics = statistics
        self._queue: deque[Request] = deque()
        self._fair_queue = FairQueue()
        # The first instant at which a request in the queue may expire.
        self._refuse_ns = _NEVER_NS
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._asleep = False  # the worker waits, and nobody has notified it
        self._flush = False
        self._enough_rows = limits.first_rows
        self._closed = False
        self._worker = threading.Thread(target=self._work, name=name, daemon=True)
        self._worker.start()

    @property
    def waiting(self) -> int:
        """Requests of which rows wait to run."""
        return len(self._queue)

    def submit(self, request: Request) -> None:
        """Queue a request; its future gets the result or the error.

        ServerStopping once closed, QueueFull at the limit of waiting requests.
        """
        with self._lock:
            if self._closed:
                raise ServerStopping("the server is stopping")
            if self._most_requests and len(self._queue) >= self._most_requests:
                raise QueueFull(f"{self._most_requests} requests wait, the limit of this model")
            request.start_tag = self._fair_queue.start_tag(request.client, request.rows)
            place(self._queue, request)
            expires_ns = request.expires_ns
            earlier = False
            if expires_ns is not None and expires_ns < self._refuse_ns:
                self._refuse_ns = expires_ns
                earlier = True
            # A worker that waits for more rows is not woken for each of them, and one that runs a
            # batch looks at the queue after it.
            if self._asleep and (earlier or len(self._queue) == 1 or self._due()[0] == 0):
                self._wake_locked()

    def flush(self) -> None:
        """Run queued requests without waiting for more: the sender is out of room."""
        with self._lock:
            self._flush = True
            self._wake_locked()

    def cancel(self, request: Request) -> None:
        """Drop a request; it keeps its bytes only until the running batch ends."""
        if request.future.done():
            return
        request.cancelled = True
        self._look_for_refused()

    def close(self) -> None:
        """Run all queued requests, then end the worker."""
        with self._lock:
            self._closed = True
            self._wake_locked()
        self._worker.join()

    def _work(self) -> None:
        buffer = BatchBuffer(
            self._limits.group_rows,
            pinned=self._engine.on_gpu,
            finite_only=self._finite_only,
            padded=self._fixed,
        )
        while (batch := self._next_batch()) is not None:
            if batch.pieces:
                self._execute(batch, buffer)
                if any(piece.request.cancelled for piece in batch.pieces):
                    self._look_for_refused()
        buffer.close()

    def _next_batch(self) -> Batch[Request] | None:
        with self._lock:
            while True:
                refused = self._drop_refused()
                if refused:
                    break
                if not self._queue:
                    if self._closed:
                        return None
                    self._flush = False
                    self._wait_locked(None)
                    continue
                left_ns, closed = self._due()
                if left_ns == 0:
                    # After another batch some of the bytes that the sender needs are still queued.
                    if closed is CloseReason.BYTES:
                        self._flush = False
                        closed = CloseReason.DRAIN if self._closed else closed
                    self._fair_queue.advance(self._queue[0].start_tag)
                    batch = take(self._queue, self._limits, closed)
                    self._enough_rows = rows_to_wait_for(self._enough_rows, batch, self._limits)
                    return batch
                expired_ns = self._refuse_ns - time.monotonic_ns()
                self._wait_locked(max(0, min(left_ns, expired_ns)) / 1e9)
        # Callbacks of a future must not run under the lock.
        for request, error in refused:
            request.fail(error)
        return Batch((), CloseReason.IDLE)

    def _wait_locked(self, timeout_s: float | None) -> None:
        self._asleep = True
        self._changed.wait(timeout_s)
        self._asleep = False

    def _wake_locked(self) -> None:
        if self._asleep:
            self._asleep = False
            self._changed.notify()

    def _due(self) -> tuple[int, CloseReason]:
        return wait_ns(
            self._queue,
            self._limits,
            time.monotonic_ns(),
            enough_rows=self._enough_rows,
            flush=self._flush or self._closed,
        )

    def _look_for_refused(self) -> None:
        with self._lock:
            self._refuse_ns = 0
            self._wake_locked()

    def _drop_refused(self) -> list[tuple[Request, ServingError]]:
        """Remove cancelled and expired requests from the queue."""
        now_ns = time.monotonic_ns()
        if now_ns < self._refuse_ns:
            return []
        self._refuse_ns = _NEVER_NS
        refused = []
        kept: deque[Request] = deque()
        for request in self._queue:
            error = request.refusal(now_ns)
            if error is not None:
                refused.append((request, error))
                continue
            kept.append(request)
            if (expires_ns := request.expires_ns) is not None:
                self._refuse_ns = min(self._refuse_ns, expires_ns)
        self._queue = kept
        return refused

    def _execute(self, batch: Batch[Request], buffer: BatchBuffer) -> None:
        try:
            started_ns = time.monotonic_ns()
            assembled = buffer.assemble(batch.pieces)
            assemble_ns = time.monotonic_ns() - started_ns
            for piece in batch.pieces:
                if piece.request in assembled.unreadable:
                    piece.request.fail(assembled.unreadable[piece.request])
                elif assembled.copied and piece.stop == piece.request.rows:
                    piece.request.release()
            self._compute(batch, assembled, started_ns, assemble_ns)
        except Exception as error:  # the worker must survive any failure of a batch
            if not isinstance(error, ServingError):
                _log.exception("execution failed", extra={"rows": batch.rows})
            for piece in batch.pieces:
                piece.request.fail(error)

    def _compute(
        self, batch: Batch[Request], assembled: Assembled, started_ns: int, assemble_ns: int
    ) -> None:
        requested = batch.pieces[0].request.outputs
        judged = next((p.request.judged for p in batch.pieces if p.request.judged), ())
        also = {label.scores for label in judged} - set(requested)
        computing_ns = time.monotonic_ns()
        try:
            # With one size of all executions they have one way to run, too: rounding depends on it.
            receiving = batch.pieces[-1].request.more_follows and not self._fixed
            outputs = self._engine.run([*requested, *also], assembled.inputs, receiving=receiving)
        except InvalidInput:
            if len(batch.pieces) == 1:
                raise
            # The values of one request must not fail its neighbours.
            self._compute_alone(batch, assembled, started_ns, assemble_ns)
            return
        compute_ns = time.monotonic_ns() - computing_ns
        self._statistics.executed(batch.rows, batch.closed, assemble_ns, compute_ns)
        rows = self._limits.group_rows if self._fixed else batch.rows
        if self._batched and any(o.shape[:1] != (rows,) for o in outputs):
            raise ModelBroken(
                f"the model returned outputs of shapes {[o.shape for o in outputs]} "
                f"for {rows} rows, expected one row each"
            )
        if rows > batch.rows:
            # Copies: views would keep the outputs of the padding in memory.
            outputs = [output[: batch.rows].copy() for output in outputs]
        spent = Timings(
            assemble_ns=assemble_ns,
            compute_ns=compute_ns,
            batch_rows=batch.rows,
            closed=batch.closed,
            execution_provider=self._engine.provider,
        )
        named = dict(zip((*requested, *also), outputs, strict=True))
        near = any_near_tie(judged, assembled.inputs, named, batch.rows)
        # Before their room is given back: the next message may take it at once.
        assembled.inputs.clear()
        outputs = outputs[: len(requested)]
        with answers_together():
            for piece, start, stop in _places(batch):
                if piece.request in assembled.unreadable:
                    continue
                if piece.request.judged:
                    before = bool(piece.request.batch_dependent)
                    piece.request.batch_dependent = before or bool(near[start:stop].any())
                own = (
                    [output[start:stop] for output in outputs] if len(batch.pieces) > 1 else outputs
                )
                _hand_out(piece, own, started_ns, spent)

    def _compute_alone(
        self, batch: Batch[Request], assembled: Assembled, started_ns: int, assemble_ns: int
    ) -> None:
        for piece, start, stop in _places(batch):
            alone = Batch((piece,), batch.closed)
            try:
                self._compute(alone, assembled.rows(start, stop), started_ns, assemble_ns)
            except InvalidInput as error:
                piece.request.fail(error)


def _places(batch: Batch[Request]) -> Iterator[tuple[Piece[Request], int, int]]:
    """Each piece with its rows of the batch."""
    start = 0
    for piece in batch.pieces:
        yield piece, start, start + piece.rows
        start += piece.rows


def _hand_out(
    piece: Piece[Request], outputs: list[NDArray[Any]], started_ns: int, spent: Timings
) -> None:
    """Store a request's rows of the outputs; the last rows complete its answer."""
    request = piece.request
    before = request.timings
    request.timings = Timings(
        # Time between the batches of one request is not spent in the queue.
        queue_ns=before.queue_ns or started_ns - request.arrived_ns,
        assemble_ns=before.assemble_ns + spent.assemble_ns,
        compute_ns=before.compute_ns + spent.compute_ns,
        batch_rows=max(before.batch_rows, spent.batch_rows),
        closed=spent.closed,
        execution_provider=spent.execution_provider,
    )
    request.pieces.append(outputs)
    if piece.stop < request.rows:
        return
    if len(request.pieces) > 1:
        outputs = [np.concatenate(parts) for parts in zip(*request.pieces, strict=True)]
    request.succeed(dict(zip(request.outputs, outputs, strict=True)))
