"""Answer a control RPC: parse its message and answer it in a thread of its own pool."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from server.rpc.native import status
from transport.serving.handler import CallHandler
from transport.serving.server_call import ServerCall
from transport.status import Code, StatusError


class ControlCall(CallHandler):
    """One call of one message, which may take as long as it likes."""

    __slots__ = ("_call", "_handle", "_message", "_pool")

    def __init__(
        self, call: ServerCall, handle: Callable[[bytes], bytes], pool: ThreadPoolExecutor
    ) -> None:
        self._call = call
        self._handle = handle
        self._pool = pool
        self._message: memoryview | None = None

    def message(self, message: memoryview) -> None:
        """Keep the message until the client has said that it is the only one."""
        if self._message is not None:
            raise StatusError(Code.UNIMPLEMENTED, "got a second message, expected one")
        self._message = message

    def half_closed(self) -> None:
        """Answer it elsewhere."""
        if self._message is None:
            raise StatusError(Code.UNIMPLEMENTED, "got no message, expected one")
        self._pool.submit(self._answer, bytes(self._message))

    def _answer(self, message: bytes) -> None:
        try:
            data = self._handle(message)
        except Exception as error:
            self._call.finish(status.of(error))
        else:
            self._call.answer([data])
