"""A call that has ended, as the server's observer sees it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from transport.status import Metadata, Status


class EndedCall(Protocol):
    """One call, once it has ended.

    `status` is the one that the client gets: CANCELLED for one that left. `refused`: no handler
    had the call, because of its path, its metadata, a limit, or because its method did not take it.
    `began_s` is of time.monotonic.
    """

    @property
    def path(self) -> str:
        """Such as "/package.Service/Method"; as the client wrote it."""

    @property
    def peer(self) -> str:
        """The client's address, as gRPC writes it."""

    @property
    def metadata(self) -> Metadata:
        """The client's metadata, if they could be read."""

    @property
    def status(self) -> Status:
        """See EndedCall."""

    @property
    def refused(self) -> bool:
        """See EndedCall."""

    @property
    def began_s(self) -> float:
        """See EndedCall."""


OnCallEnded = Callable[[EndedCall], object]


@dataclass(frozen=True, slots=True)
class RefusedCall:
    """An EndedCall that was refused before anything was made for it."""

    path: str
    peer: str
    metadata: Metadata
    status: Status
    began_s: float
    refused: bool = True
