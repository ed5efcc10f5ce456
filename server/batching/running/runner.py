"""Run batches on one engine, from memory of this runner."""

import logging
import time
from collections.abc import Callable

from server.batching.batch_buffer import Assembled, BatchBuffer
from server.batching.near_ties import any_near_tie
from server.batching.policy import Batch
from server.batching.request import Request, Timings
from server.batching.running.execution import Execution, Failure, places
from server.batching.statistics import Statistics
from server.errors import InvalidInput, ModelBroken, OutOfResources, ServingError, named
from server.onnx.engine import Engine
from transport import headroom

_log = logging.getLogger(__name__)

# For fewer rows of a large model the weights are most of what is read, faster by two cores.
_LEAST_OVERLAPPED_BYTES = 4 * 2**20

_NOTHING = Assembled({}, False, {})

Result = Execution | Failure


class Runner:
    """Runs one batch at a time."""

    def __init__(
        self,
        engine: Engine,
        group_rows: int,
        statistics: Statistics,
        let_go: Callable[[Batch[Request]], object],
        *,
        batched: bool,
        finite_only: bool,
        fixed: bool,
    ) -> None:
        """The arguments are the scheduler's; `let_go` is called once a batch needs no inputs."""
        self._engine = engine
        self._group_rows = group_rows
        self._statistics = statistics
        self._let_go = let_go
        self._batched = batched
        self._fixed = fixed
        self._ended_ns = 0
        self._buffer = BatchBuffer(
            group_rows, pinned=engine.on_gpu, finite_only=finite_only, padded=fixed
        )

    def close(self) -> None:
        """Release the memory."""
        self._buffer.close()

    def run(self, batch: Batch[Request]) -> list[Result]:
        """The results of a batch: one, or one for each piece where they had to run alone."""
        assembled, held = _NOTHING, True
        try:
            headroom.check()
            started_ns = time.monotonic_ns()
            assembled = self._buffer.assemble(batch.pieces)
            assemble_ns = time.monotonic_ns() - started_ns
            if assembled.copied:
                self._let_go(batch)
                held = False
            return self._compute(batch, assembled, started_ns, assemble_ns)
        except Exception as failure:  # the worker must survive any failure of a batch
            error = named(failure)
            if not isinstance(error, ServingError):
                _log.exception("execution failed", extra={"rows": batch.rows})
            elif isinstance(error, OutOfResources):
                _log.warning("execution failed: %s", error, extra={"rows": batch.rows})
            return [Failure(batch, error)]
        finally:
            # Before their room is given back: the next message may take it at once.
            assembled.inputs.clear()
            if held:
                self._let_go(batch)

    def _compute(
        self, batch: Batch[Request], assembled: Assembled, started_ns: int, assemble_ns: int
    ) -> list[Result]:
        requested = batch.pieces[0].request.outputs
        judged = next((p.request.judged for p in batch.pieces if p.request.judged), ())
        also = {label.scores for label in judged} - set(requested)
        computing_ns = time.monotonic_ns()
        try:
            receiving = self._receiving(batch)
            outputs = self._engine.run([*requested, *also], assembled.inputs, receiving=receiving)
        except InvalidInput as error:
            if len(batch.pieces) == 1:
                return [Failure(batch, error)]
            # The values of one request must not fail its neighbours.
            return self._compute_alone(batch, assembled, started_ns, assemble_ns)
        compute_ns = time.monotonic_ns() - computing_ns
        self._ended_ns = computing_ns + compute_ns
        self._statistics.executed(batch.rows, batch.closed, assemble_ns, compute_ns)
        rows = self._group_rows if self._fixed else batch.rows
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
        # The next batch overwrites the inputs.
        near = any_near_tie(judged, assembled.inputs, named, batch.rows)
        outputs = outputs[: len(requested)]
        return [Execution(batch, outputs, near, assembled.unreadable, started_ns, spent)]

    def _receiving(self, batch: Batch[Request]) -> bool:
        """Whether receiving more rows probably takes a core while this batch runs."""
        # With one size of all executions they have one way to run, too: rounding depends on it.
        if self._fixed:
            return False
        if batch.pieces[-1].request.more_follows:
            return True
        # Clients that sent while the batch before ran, and have its answers, send while this one
        # runs. The rest of a request that came whole says nothing of others, and rows in shared
        # memory are not part of its bytes.
        overlapped_bytes = 0
        for piece in batch.pieces:
            if piece.start == 0 and piece.request.arrived_ns < self._ended_ns:
                overlapped_bytes += piece.request.size_bytes
        return overlapped_bytes >= _LEAST_OVERLAPPED_BYTES

    def _compute_alone(
        self, batch: Batch[Request], assembled: Assembled, started_ns: int, assemble_ns: int
    ) -> list[Result]:
        results: list[Result] = []
        for piece, start, stop in places(batch):
            alone = Batch((piece,), batch.closed)
            results += self._compute(alone, assembled.rows(start, stop), started_ns, assemble_ns)
        return results
