"""An inference request that has ended, as observers see it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from server.batching.request import Timings
from transport.status import Code


# Not frozen: that makes one take four times as long, and each request has one. None is changed.
@dataclass(slots=True, kw_only=True)
class EndedRequest:
    """A ModelInfer call with a handler, or one message of a ModelStreamInfer call.

    `model` and `version` are those that had it. With `refused` none had: they are what the message
    names, as far as it was read. `code` and `error` are what the client gets, in a stream as the
    message's own error. Instants are of time.monotonic_ns: `arrived_ns` is when the message was
    complete, or else when its call began. `receive_ns` is the time since its first byte, None where
    that was not seen; stages that it did not reach are 0. `method` is ModelInfer or
    ModelStreamInfer, `metadata` that of its call.
    """

    method: str
    peer: str
    metadata: Sequence[tuple[str, str | bytes]]
    model: str
    version: str
    refused: bool
    request_id: str
    code: Code
    error: str
    arrived_ns: int
    ended_ns: int
    rows: int = 0
    request_bytes: int = 0
    response_bytes: int = 0
    receive_ns: int | None = None
    decode_ns: int = 0
    encode_ns: int = 0
    timings: Timings = Timings()

    def bounded(self, longest: int) -> "EndedRequest":
        """The same for one that keeps it: without metadata, its client's texts cut."""
        return replace(
            self,
            metadata=(),
            model=self.model[:longest],
            version=self.version[:longest],
            request_id=self.request_id[:longest],
            error=self.error[:longest],
        )


OnRequestEnded = Callable[[EndedRequest], object]
# The model that had it, "" if none had, and the metadata of its call.
Wants = Callable[[str, Sequence[tuple[str, str | bytes]]], bool]
