"""Why there is no connection to a server, apart from what the system and TLS say themselves."""

from dataclasses import dataclass

from transport.status import Status


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
