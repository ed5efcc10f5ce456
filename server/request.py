"""One request on its way through the scheduler."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from server.argmax_labels import ArgmaxLabel
from server.errors import Cancelled, DeadlinePassed, QueueTimeout, ServingError
from server.shared_memory import SharedTensor

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Timings:
    """Where a request's time went; sums over its batches when it took more than one."""

    queue_ns: int = 0
    assemble_ns: int = 0
    compute_ns: int = 0
    batch_rows: int = 0
    execution_provider: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """Outputs by name, rows as in the request, with the time they took."""

    outputs: Mapping[str, Array]
    timings: Timings


@dataclass(eq=False, slots=True)
class Caller:
    """Whoever sent a request.

    Requests of one `client` take turns with those of others. `when_gone` keeps what is to be
    called once nobody waits for the answer; it gives False where that is so already.
    """

    client: str = ""
    deadline_ns: int | None = None
    when_gone: Callable[[Callable[[], object]], bool] = lambda _: True


@dataclass(eq=False, slots=True)
class Request:
    """Inputs that wait, run, perhaps in several batches, and answer through `future`.

    `released` is done as soon as the inputs are needed no more: once they are copied, or run.

    `rows` is the size of the leading batch axis of every input (1 for models without one).
    Instants are of the monotonic clock, so a step of the wall clock expires nothing.
    """

    inputs: Mapping[str, Array | SharedTensor]
    outputs: tuple[str, ...]
    rows: int
    size_bytes: int = 0
    deadline_ns: int | None = None
    queue_deadline_ns: int | None = None
    # The sender says that more of the same follows at once, as MSG_MORE does for a socket.
    more_follows: bool = False
    # Only requests with equal keys share a batch.
    key: object = None
    client: str = ""
    # Of its next row; the scheduler sets it.
    turn: int = 0
    arrived_ns: int = field(default_factory=time.monotonic_ns)
    future: Future[Result] = field(default_factory=Future)
    released: Future[None] = field(default_factory=Future)
    taken_rows: int = 0
    pieces: list[list[Array]] = field(default_factory=list)
    timings: Timings = field(default_factory=Timings)
    cancelled: bool = False
    # Labels to hold against their scores, and what came of that: whether the label of a row may
    # depend on the batch. None: nothing is known.
    judged: tuple[ArgmaxLabel, ...] = ()
    batch_dependent: bool | None = None

    @property
    def in_place(self) -> bool:
        """Whether its rows can be run where they lie."""
        return not any(isinstance(data, SharedTensor) for data in self.inputs.values())

    def release(self) -> None:
        """Let go of the inputs, and with them of the message they lie in."""
        if not self.released.done():
            self.inputs = {}
            self.released.set_result(None)

    def succeed(self, outputs: Mapping[str, Array]) -> None:
        """Answer with outputs."""
        self.release()
        self.future.set_result(Result(outputs, self.timings))

    def fail(self, error: Exception) -> None:
        """Answer with an error, unless there was one already; nothing more of it runs."""
        self.cancelled = True
        self.release()
        if not self.future.done():
            self.future.set_exception(error)

    @property
    def expires_ns(self) -> int | None:
        """The first instant at which a deadline refuses it."""
        queued = self.queue_deadline_ns if self.taken_rows == 0 else None
        if self.deadline_ns is None or queued is None:
            return queued if self.deadline_ns is None else self.deadline_ns
        return min(self.deadline_ns, queued)

    def refusal(self, now_ns: int) -> ServingError | None:
        """Why the request must not run any more, if so."""
        if self.cancelled:
            return Cancelled("the client gave the request up")
        if self.deadline_ns is not None and now_ns >= self.deadline_ns:
            return DeadlinePassed("the deadline passed before the model was run")
        if (
            self.queue_deadline_ns is not None
            and self.taken_rows == 0
            and now_ns >= self.queue_deadline_ns
        ):
            return QueueTimeout("the request's timeout passed while it was queued")
        return None
