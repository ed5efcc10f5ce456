"""One request on its way through the scheduler."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from server.batching.argmax_labels import ArgmaxLabel
from server.batching.outcome import Outcome
from server.batching.shared_memory import SharedTensor
from server.errors import Cancelled, DeadlinePassed, QueueTimeout, ServingError


@dataclass(frozen=True, slots=True)
class Timings:
    """Time of a request by stage; sums over its batches if there were several.

    `closed`: why the last of them took no more rows, a CloseReason.
    """

    queue_ns: int = 0
    assemble_ns: int = 0
    compute_ns: int = 0
    batch_rows: int = 0
    closed: str = ""
    execution_provider: str = ""


_NOT_RUN = Timings()


@dataclass(slots=True)
class Result:
    """Outputs by name, rows as in the request, with the time they took."""

    outputs: Mapping[str, NDArray[Any]]
    timings: Timings


@dataclass(eq=False, slots=True)
class Caller:
    """The sender of a request.

    Requests are queued fairly between `client` names. `on_cancel` sets a callback for when the
    answer is no longer awaited; it returns False if that is already so. `method` and `metadata` are
    those of its call.
    """

    client: str = ""
    deadline_ns: int | None = None
    on_cancel: Callable[[Callable[[], object]], bool] = lambda _: True
    method: str = ""
    metadata: Sequence[tuple[str, str | bytes]] = ()


@dataclass(eq=False, slots=True)
class Request:
    """Inputs that wait, run in one or several batches, and answer through `future`.

    `released` is done as soon as the inputs are not needed any more: copied, or run.

    `rows` is the size of the leading batch axis of every input (1 for models without one).
    Instants are of the monotonic clock, so a step of the wall clock expires nothing.
    """

    inputs: Mapping[str, NDArray[Any] | SharedTensor]
    outputs: tuple[str, ...]
    rows: int
    size_bytes: int = 0
    # Of its outputs, as far as the model states their size.
    answer_bytes: int = 0
    deadline_ns: int | None = None
    queue_deadline_ns: int | None = None
    # The sender announces another message of the same batch, as MSG_MORE does for a socket.
    more_follows: bool = False
    # Only requests with equal keys share a batch.
    key: object = None
    client: str = ""
    # Of its next row; the scheduler sets it.
    start_tag: int = 0
    arrived_ns: int = field(default_factory=time.monotonic_ns)
    future: Outcome[Result] = field(default_factory=Outcome)
    released: Outcome[None] = field(default_factory=Outcome)
    taken_rows: int = 0
    pieces: list[list[NDArray[Any]]] = field(default_factory=list)
    timings: Timings = _NOT_RUN
    cancelled: bool = False
    # The queue while it has rows, and each batch that still reads some of several pieces; guarded
    # by the scheduler's lock.
    readers: int = 1
    # Labels to check against their scores, and the result: whether the label of a row may depend on
    # the batch. None: unknown.
    judged: tuple[ArgmaxLabel, ...] = ()
    batch_dependent: bool | None = None

    @property
    def in_place(self) -> bool:
        """Whether its rows can be run without a copy."""
        return not any(isinstance(data, SharedTensor) for data in self.inputs.values())

    def release(self) -> None:
        """Drop the inputs, and with them the message they lie in."""
        if not self.released.done():
            self.inputs = {}
            self.released.set_result(None)

    def succeed(self, outputs: Mapping[str, NDArray[Any]]) -> None:
        """Answer with outputs."""
        self.release()
        self.future.set_result(Result(outputs, self.timings))

    def fail(self, error: Exception) -> None:
        """Answer with an error, unless there was one already; no more of its rows run.

        The inputs are released apart: batches may still read them.
        """
        self.cancelled = True
        if not self.future.done():
            self.future.set_exception(error)

    @property
    def expires_ns(self) -> int | None:
        """The first instant at which a deadline expires."""
        queued = self.queue_deadline_ns if self.taken_rows == 0 else None
        if self.deadline_ns is None or queued is None:
            return queued if self.deadline_ns is None else self.deadline_ns
        return min(self.deadline_ns, queued)

    def refusal(self, now_ns: int) -> ServingError | None:
        """The error of a cancelled or expired request, else None."""
        if self.cancelled:
            return Cancelled("the client cancelled the request")
        if self.deadline_ns is not None and now_ns >= self.deadline_ns:
            return DeadlinePassed("the deadline passed before the model was run")
        if (
            self.queue_deadline_ns is not None
            and self.taken_rows == 0
            and now_ns >= self.queue_deadline_ns
        ):
            return QueueTimeout("the request's timeout passed while it was queued")
        return None
