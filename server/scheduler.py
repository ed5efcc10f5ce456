"""Queue requests for one model and run them in batches.

This is the one place where requests wait, whether they came alone, on a stream or through shared
memory.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator

import numpy as np

from scheduling.batching import (
    Batch,
    Closed,
    Limits,
    Piece,
    place,
    rows_to_wait_for,
    take,
    wait_ns,
)
from server.batch_buffer import Assembled, BatchBuffer
from server.engine import Engine
from server.errors import InvalidInput, ModelBroken, QueueFull, ServerStopping, ServingError
from server.near_ties import any_near_tie
from server.request import Array, Request, Timings
from server.statistics import Statistics
from server.turns import Turns

_log = logging.getLogger(__name__)
_NEVER_NS = 2**63


class Scheduler:
    """A queue before an engine, with one thread that empties it.

    Clients take turns; what one of them sent is run in the order it came. One thread, because the
    slices of a large request must end in order, and because an execution uses every core already:
    a second worker was measured to gain nothing.
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
        """`batched`: outputs have a row for each of the inputs'.

        `most_requests`: how many may wait, 0 for any number. `finite_only`: refuse NaN and
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
        self._turns = Turns()
        # The first instant at which something in the queue may have to be refused.
        self._refuse_ns = _NEVER_NS
        self._changed = threading.Condition()
        self._hurry = False
        self._enough_rows = limits.first_rows
        self._closed = False
        self._worker = threading.Thread(target=self._work, name=name, daemon=True)
        self._worker.start()

    def submit(self, request: Request) -> None:
        """Queue a request; its future gets the result or the error.

        ServerStopping once closed, QueueFull when as many wait as may.
        """
        with self._changed:
            if self._closed:
                raise ServerStopping("the server is stopping")
            if self._most_requests and len(self._queue) >= self._most_requests:
                raise QueueFull(f"{self._most_requests} requests wait, the most this model allows")
            request.turn = self._turns.of(request.client, request.rows)
            place(self._queue, request)
            expires_ns = request.expires_ns
            earlier = False
            if expires_ns is not None and expires_ns < self._refuse_ns:
                self._refuse_ns = expires_ns
                earlier = True
            # A worker that waits for more rows need not wake for each of them.
            if earlier or len(self._queue) == 1 or self._due()[0] == 0:
                self._changed.notify()

    def hurry(self) -> None:
        """Run what is queued without waiting for more: the sender is out of room."""
        with self._changed:
            self._hurry = True
            self._changed.notify()

    def cancel(self, request: Request) -> None:
        """Give a request up: it holds its bytes until the batch under way is done, no longer."""
        if request.future.done():
            return
        request.cancelled = True
        self._look_for_refused()

    def close(self) -> None:
        """Run all that is queued, then end the worker."""
        with self._changed:
            self._closed = True
            self._changed.notify()
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
        with self._changed:
            while True:
                refused = self._drop_refused()
                if refused:
                    break
                if not self._queue:
                    if self._closed:
                        return None
                    self._hurry = False
                    self._changed.wait()
                    continue
                left_ns, closed = self._due()
                if left_ns == 0:
                    # Other batches leave some of what the sender waits for in the queue.
                    if closed is Closed.BYTES:
                        self._hurry = False
                        closed = Closed.DRAIN if self._closed else closed
                    self._turns.reached(self._queue[0].turn)
                    batch = take(self._queue, self._limits, closed)
                    self._enough_rows = rows_to_wait_for(self._enough_rows, batch, self._limits)
                    return batch
                expired_ns = self._refuse_ns - time.monotonic_ns()
                self._changed.wait(max(0, min(left_ns, expired_ns)) / 1e9)
        # Callbacks of a future must not run under the lock.
        for request, error in refused:
            request.fail(error)
        return Batch((), Closed.IDLE)

    def _due(self) -> tuple[int, Closed]:
        return wait_ns(
            self._queue,
            self._limits,
            time.monotonic_ns(),
            enough_rows=self._enough_rows,
            hurry=self._hurry or self._closed,
        )

    def _look_for_refused(self) -> None:
        with self._changed:
            self._refuse_ns = 0
            self._changed.notify()

    def _drop_refused(self) -> list[tuple[Request, ServingError]]:
        """Remove what must not run any more from the queue."""
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
        except Exception as error:  # the worker must live on, whatever the batch did
            if not isinstance(error, ServingError):
                _log.exception("execution failed", extra={"rows": batch.rows})
            for piece in batch.pieces:
                piece.request.fail(error)

    def _compute(
        self, batch: Batch[Request], assembled: Assembled, started_ns: int, assemble_ns: int
    ) -> None:
        wanted = batch.pieces[0].request.outputs
        judged = next((p.request.judged for p in batch.pieces if p.request.judged), ())
        also = {label.scores for label in judged} - set(wanted)
        computing_ns = time.monotonic_ns()
        try:
            outputs = self._engine.run([*wanted, *also], assembled.inputs)
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
                f"the model gave outputs of shapes {[o.shape for o in outputs]} "
                f"for {rows} rows; wanted one row each"
            )
        if rows > batch.rows:
            # Copies, as what padding gave would stay in memory with them.
            outputs = [output[: batch.rows].copy() for output in outputs]
        spent = Timings(
            assemble_ns=assemble_ns,
            compute_ns=compute_ns,
            batch_rows=batch.rows,
            execution_provider=self._engine.provider,
        )
        named = dict(zip((*wanted, *also), outputs, strict=True))
        near = any_near_tie(judged, assembled.inputs, named, batch.rows)
        outputs = outputs[: len(wanted)]
        for piece, start, stop in _places(batch):
            if piece.request not in assembled.unreadable:
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
    """Each piece with the rows of the batch that are its."""
    start = 0
    for piece in batch.pieces:
        yield piece, start, start + piece.rows
        start += piece.rows


def _hand_out(piece: Piece[Request], outputs: list[Array], started_ns: int, spent: Timings) -> None:
    """Give a request its rows of the outputs; the last of them is its answer."""
    request = piece.request
    before = request.timings
    request.timings = Timings(
        # Time between the batches of one request is not spent in the queue.
        queue_ns=before.queue_ns or started_ns - request.arrived_ns,
        assemble_ns=before.assemble_ns + spent.assemble_ns,
        compute_ns=before.compute_ns + spent.compute_ns,
        batch_rows=max(before.batch_rows, spent.batch_rows),
        execution_provider=spent.execution_provider,
    )
    request.pieces.append(outputs)
    if piece.stop < request.rows:
        return
    if len(request.pieces) > 1:
        outputs = [np.concatenate(parts) for parts in zip(*request.pieces, strict=True)]
    request.succeed(dict(zip(request.outputs, outputs, strict=True)))
