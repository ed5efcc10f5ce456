"""Whether a connection's server says that it serves: grpc.health.v1, watched on each connection.

https://github.com/grpc/grpc/blob/master/doc/health-checking.md, client-side. The messages are
small enough to be read by hand: a request without a field asks about the whole server, and field 1
of the answer is the status.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from transport.calling.call_spec import CallSpec
from transport.calling.client_call import ClientCall
from transport.status import Code, Status

if TYPE_CHECKING:
    from transport.calling.client_connection import ClientConnection

PATH = "/grpc.health.v1.Health/Watch"
_STATUS_TAG, _SERVING = 0x08, 1
# A watch that ended, though the server has a health service, is begun again.
_AGAIN_S = 1.0
_RECEIVE_AHEAD_BYTES = 64 * 1024


class Health:
    """Watches the server of one connection; `on_change` gets whether it serves, in any thread."""

    def __init__(
        self, connection: "ClientConnection", block: bytes, on_change: Callable[[bool], None]
    ) -> None:
        """`block`: the headers of a call of `PATH`."""
        self.connection = connection
        self._spec = CallSpec(block, None, None, False, "identity", _RECEIVE_AHEAD_BYTES)
        self._on_change = on_change
        self._serving: bool | None = None
        self._stopped = False
        self._watch: _Watch | None = None

    def begin(self) -> None:
        """Ask; `on_change` follows."""
        if not self._stopped:
            self._watch = _Watch(self.connection, self._spec, self)
            self._watch.begin_unary((b"",))

    def stop(self) -> None:
        """The connection takes no more calls, or it is gone."""
        self._stopped = True
        if self._watch is not None:
            self._watch.cancel()

    def report(self, serving: bool) -> None:
        """The server has said whether it serves."""
        if serving is not self._serving and not self._stopped:
            self._serving = serving
            self._on_change(serving)

    def ended(self, status: Status) -> None:
        """The server ended the watch; until it says otherwise, what it said last holds."""
        if self._stopped or self.connection.closing:
            return
        if self._serving is None or status.code is Code.UNIMPLEMENTED:
            self.report(True)
        if status.code is not Code.UNIMPLEMENTED:
            self.connection.loop.call_later(_AGAIN_S, self.begin)


class _Watch(ClientCall):
    """One call of Watch, which stays on its connection and needs no thread that reads it."""

    def __init__(self, connection: "ClientConnection", spec: CallSpec, health: Health) -> None:
        super().__init__(_OneConnection(connection), spec)
        self._health = health

    def on_message(self, message: memoryview, began_ns: int) -> None:
        """See ClientCall."""
        self._health.report(serves(message))

    def on_end(self, status: Status) -> None:
        """See ClientCall."""
        already = self.done()
        super().on_end(status)
        if not already:
            self._health.ended(status)

    def try_again(self) -> bool:
        """See ClientCall: there is no other connection."""
        return False


class _OneConnection:
    """See Dispatcher."""

    def __init__(self, connection: "ClientConnection") -> None:
        self._connection = connection
        self.loop = connection.loop

    def dispatch(self, call: ClientCall, block: bytes) -> None:
        """See Dispatcher."""
        if not self._connection.open(call, block):
            call.end(Status(Code.UNAVAILABLE, "the connection takes no calls"))

    def forget(self, call: ClientCall) -> None:
        """See Dispatcher."""


def serves(message: memoryview) -> bool:
    """Whether a HealthCheckResponse says SERVING; an empty one says UNKNOWN."""
    status = bytes(message)
    return len(status) >= 2 and status[-2] == _STATUS_TAG and status[-1] == _SERVING
