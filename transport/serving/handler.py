"""What answers calls at the server."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from transport.messages import NEVER
from transport.status import Code, StatusError

if TYPE_CHECKING:
    from transport.serving.server_call import ServerCall


class CallHandler:
    """What answers one call. The I/O thread calls its methods, which must not block."""

    # Whether the time between its messages is the client's affair, as in a stream.
    open_ended = False
    # In place of the server's own `receive_s`.
    receive_s: float | None = None

    def admit(self, length: int) -> bool:
        """Whether a message of `length` bytes may come; if not, `ServerCall.resume` lets it.

        StatusError refuses it, and ends the call, before its payload is read; SkipMessage drops it,
        and the call goes on. A compressed message is asked for twice: as it comes, and unpacked.
        """
        return True

    def room_bytes(self) -> int | None:
        """Bytes that `admit` takes now, beside what it has taken; None: as many as come.

        The client may send no more messages ahead than fit.
        """
        return None

    def arriving(self, message: memoryview, filled: int) -> int:
        """A large message is arriving: its first `filled` bytes are there, the others undefined.

        Returns how many must be there for the next call, NEVER for none. `message`, or `cancelled`
        where it never completes, follows. Compressed messages are not shown.
        """
        return NEVER

    def message(self, message: memoryview) -> None:
        """A message arrived; its memory belongs to the handler."""

    def skipped(self, length: int, head: bytes) -> None:
        """A message that `admit` skipped would be here; `head` is its start, empty if packed."""

    def half_closed(self) -> None:
        """No more messages come."""

    def cancelled(self) -> None:
        """Nobody waits for the answer any more: cancelled, past its deadline, connection lost."""


# Of calls that have none yet, or none any more.
NO_HANDLER = CallHandler()

Method = Callable[["ServerCall"], CallHandler]


class NotGrpc(CallHandler):
    """Answers a request that is not gRPC's."""

    def __init__(self, call_: "ServerCall", status: int, text: str) -> None:
        self._call = call_
        self._status = status
        self._text = text

    def half_closed(self) -> None:
        """See CallHandler."""
        self._call.finish_http(self._status, self._text)


class Unary(CallHandler):
    """Answers a call of one message with `function(call, message)`, in the I/O thread."""

    __slots__ = ("_call", "_function", "_message")

    def __init__(
        self, call_: "ServerCall", function: Callable[["ServerCall", memoryview], None]
    ) -> None:
        self._call = call_
        self._function = function
        self._message: memoryview | None = None

    def message(self, message: memoryview) -> None:
        """See CallHandler."""
        if self._message is not None:
            raise StatusError(Code.UNIMPLEMENTED, "got a second message, expected one")
        self._message = message

    def half_closed(self) -> None:
        """See CallHandler."""
        message, self._message = self._message, None
        if message is None:
            raise StatusError(Code.UNIMPLEMENTED, "got no message, expected one")
        self._function(self._call, message)


def unary(function: Callable[["ServerCall", memoryview], None]) -> Method:
    """A method of one message, which `function` answers by `ServerCall.answer` or `finish`."""
    return lambda server_call: Unary(server_call, function)
