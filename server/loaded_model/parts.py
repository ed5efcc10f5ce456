"""Queue a request in parts, each once its rows are there, and join what they answer.

Each part is an ordinary request of the queue; only the answer belongs to the whole.
"""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.batching.outcome import Outcome
from server.batching.policy import Limits
from server.batching.request import Request, Result, Timings
from server.batching.shared_memory import SharedTensor

# A part costs about as much Python as a message of a stream.
_PART_BYTES = 16 * 2**20


def part_rows(limits: Limits, row_bytes: int) -> int:
    """Rows of a part: those of one execution, or of more where they are few bytes."""
    if limits.group_rows * row_bytes >= _PART_BYTES:
        return limits.group_rows
    executions = -(-_PART_BYTES // (limits.slice_rows * row_bytes))
    return executions * limits.slice_rows


class Parts:
    """A request of arrays whose rows come one after another.

    One thread queues, drops and finishes; parts end in any other.
    """

    def __init__(
        self,
        whole: Request,
        rows: int,
        submit: Callable[[Request], None],
        cancel: Callable[[Request], None],
    ) -> None:
        """`whole` answers for its parts of `rows` rows each; it is not queued itself.

        It is released as soon as no part needs its inputs and no more can be queued.
        """
        self._whole = whole
        self._rows = rows
        self._submit = submit
        self._cancel = cancel
        self._queued_rows = 0
        self._lock = threading.Lock()
        self._parts: list[Request] = []
        self._running = 0  # parts without an outcome
        self._unreleased = 0
        self._complete = False  # the last part is queued
        self._dropped = False
        self._error: Exception | None = None  # of the first part that failed

    @property
    def failed(self) -> bool:
        """Whether a part failed; the others are cancelled then."""
        return self._error is not None

    @property
    def begun(self) -> bool:
        """Whether a part was queued."""
        return self._queued_rows > 0

    @property
    def next_rows(self) -> int | None:
        """Rows that have to be there for the next part; None where that is the last one."""
        rows = self._queued_rows + self._rows
        return rows if rows < self._whole.rows else None

    def queue(self, rows: int) -> None:
        """Queue what is complete with the first `rows` rows, except for the last part.

        Raises as the queue does.
        """
        while (stop := self.next_rows) is not None and stop <= rows:
            self._queue(stop)

    def finish(self) -> None:
        """Queue all that is left: every row is there. Raises as the queue does."""
        self._queue(self._whole.rows)

    def drop(self) -> None:
        """Cancel what is queued; the whole gets no outcome unless it was finished."""
        with self._lock:
            self._dropped = True
            released = not self._unreleased
        self._cancel_all()
        if released:
            self._whole.release()

    def _queue(self, stop: int) -> None:
        whole, start = self._whole, self._queued_rows
        last = stop == whole.rows
        inputs: dict[str, NDArray[Any] | SharedTensor] = {}
        for name, data in whole.inputs.items():
            assert not isinstance(data, SharedTensor)
            inputs[name] = data[start:stop]
        part = Request(
            inputs=inputs,
            outputs=whole.outputs,
            rows=stop - start,
            deadline_ns=whole.deadline_ns,
            more_follows=whole.more_follows or not last,
            key=whole.key,
            client=whole.client,
            # What waits for company has waited since the first part.
            arrived_ns=whole.arrived_ns,
            judged=whole.judged,
            batch_dependent=whole.batch_dependent,
        )
        self._submit(part)
        self._queued_rows = stop
        with self._lock:
            self._parts.append(part)
            self._running += 1
            self._unreleased += 1
            self._complete = last
        part.released.add_done_callback(self._part_released)
        part.future.add_done_callback(self._part_ended)

    def _part_released(self, _: Outcome[None]) -> None:
        with self._lock:
            self._unreleased -= 1
            released = not self._unreleased and (self._complete or self._dropped)
        if released:
            self._whole.release()

    def _part_ended(self, outcome: Outcome[Result]) -> None:
        error = outcome.exception()
        with self._lock:
            self._running -= 1
            self._error = self._error or error
            ended = self._complete and not self._running
        if ended:
            self._answer()
        elif error is not None:
            self._cancel_all()

    def _cancel_all(self) -> None:
        with self._lock:
            parts = list(self._parts)
        for part in parts:
            self._cancel(part)

    def _answer(self) -> None:
        whole = self._whole
        try:
            if self._error is not None:
                raise self._error
            results = [part.future.result() for part in self._parts]
            whole.timings = _sum([result.timings for result in results])
            judgements = [part.batch_dependent for part in self._parts]
            whole.batch_dependent = None if None in judgements else any(judgements)
            outputs = {
                name: np.concatenate([result.outputs[name] for result in results])
                for name in whole.outputs
            }
        except Exception as error:
            whole.fail(error)
        else:
            whole.succeed(outputs)


def _sum(parts: list[Timings]) -> Timings:
    """As those of a request that ran in several batches."""
    return Timings(
        queue_ns=parts[0].queue_ns,
        assemble_ns=sum(part.assemble_ns for part in parts),
        compute_ns=sum(part.compute_ns for part in parts),
        batch_rows=max(part.batch_rows for part in parts),
        execution_provider=parts[-1].execution_provider,
    )
