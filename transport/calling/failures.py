"""Ends of calls that no server has decided on, and why there is no connection to one."""

from dataclasses import dataclass

from transport.status import Code, Status


class NotHttp2(OSError):
    """The peer speaks something else."""


class ClosedEarly(OSError):
    """The peer closed the connection before it sent HTTP/2's settings."""


class NotServing(Exception):
    """The server is connected, and its health service says that it does not serve."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no connection to `target`."""

    target: str
    cause: Exception

    @property
    def text(self) -> str:
        """The failure in one line."""
        if isinstance(self.cause, NotServing):
            return f"{self.target} {self.cause}"
        return f"failed to connect to {self.target}: {self.cause}"


@dataclass(frozen=True, slots=True)
class NotConnected(Status):
    """The end of a call that reached no server."""

    failures: tuple[Failure, ...] = ()


@dataclass(frozen=True, slots=True)
class Cut(Status):
    """The end of a call that neither its caller nor a server's error ended.

    Its stream was reset, or ended without a status, or as CANCELLED: by a proxy, or by a server
    that stops.
    """


def undecided(status: Status) -> bool:
    """Whether a call ended without an answer or an error about it, so that another may get one."""
    return status.code is Code.UNAVAILABLE or isinstance(status, Cut)
