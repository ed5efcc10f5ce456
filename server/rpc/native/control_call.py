"""Answer a control RPC in a thread of a pool: it may take as long as it likes.

The I/O thread takes the message. A small one needs no room in the byte budget, so that control RPCs
are answered while inference holds all of it.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from server.errors import TooMany
from server.rpc.idle_trim import IdleTrim
from server.rpc.inference import Inference
from server.rpc.native import status
from server.rpc.native.room import Room
from server.rpc.thread_pools import InFlight
from transport.serving.handler import NO_HANDLER, CallHandler, Method, Unary
from transport.serving.server_call import ServerCall

_SMALL_BYTES = 4 * 1024
# What is made of a byte of another one: copies of the message, and its texts, in letters of four
# bytes, as they are, quoted, and within the text of an error.
_BECOMES_BYTES = 14


class ControlMethods:
    """Makes the handlers of control RPCs."""

    def __init__(self, inference: Inference, calls: InFlight, idle_trim: IdleTrim) -> None:
        self.inference = inference
        self.calls = calls
        self.idle_trim = idle_trim

    def method(
        self,
        handle: Callable[[bytes], bytes],
        pool: ThreadPoolExecutor,
        receive_s: float | None = None,
    ) -> Method:
        """A method of one message, which `handle` answers in a thread of the pool.

        `receive_s` bounds how long the message may take, in place of the server's own bound.
        """

        def start(call: ServerCall) -> CallHandler:
            handler = _ControlCall(call, handle, pool, self)
            handler.receive_s = receive_s
            return handler

        return start


class _ControlCall(Unary):
    """One call. The I/O thread calls all but `_answer`."""

    def __init__(
        self,
        call: ServerCall,
        handle: Callable[[bytes], bytes],
        pool: ThreadPoolExecutor,
        methods: ControlMethods,
    ) -> None:
        """Count the call. StatusError when as many are open as may be."""
        if not methods.calls.enter():
            raise status.error(methods.calls.refusal())
        super().__init__(call, self._take)
        self._handle = handle
        self._pool = pool
        self._methods = methods
        inference = methods.inference
        self._room = Room(inference.budget, call, inference.flush)
        self._waits: memoryview | None = None  # for room for what is made of it
        self._submitted = False

    def admit(self, length: int) -> bool:
        """Take room for a message that is not small."""
        if length <= _SMALL_BYTES:
            return True
        with status.RAISED:
            return self._room.ask(length)

    def cancelled(self) -> None:
        """Leave, unless a thread has the call."""
        self._waits = None
        if not self._submitted:
            self._room.give_back_answer()
            self._end(0)

    def _take(self, call: ServerCall, message: memoryview) -> None:
        """Let a thread have the message, once there is room for what it becomes."""
        length = len(message)
        if length > _SMALL_BYTES:
            with status.RAISED:
                if not self._room.grow(_BECOMES_BYTES * length, self._granted):
                    self._waits = message
                    return
        self._submit(message)

    def _granted(self) -> None:
        """Any thread."""
        self._call.connection.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        message, self._waits = self._waits, None
        if message is not None:
            self._submit(message)

    def _submit(self, message: memoryview) -> None:
        self._submitted = True
        self._pool.submit(self._answer, self._call, message)

    def _answer(self, call: ServerCall, message: memoryview) -> None:
        length = len(message)
        try:
            if call.done:
                self._room.give_back_answer()
            else:
                self._send(self._handle(bytes(message)))
        except Exception as error:
            self._room.give_back_answer()
            call.finish(status.of(error))
        finally:
            del message
            self._end(length)

    def _send(self, answer: bytes) -> None:
        room = self._room
        if not room.cover(len(answer)):
            raise TooMany("the server has no room for the answer: clients do not read theirs")
        gone = room.give_back_answer
        if not self._call.answer([answer], lambda _: gone(), gone):
            gone()

    def _end(self, length: int) -> None:
        self._room.give_back_message()
        self._methods.calls.leave()
        self._methods.idle_trim.ended(length)
        # Call and handler would keep each other until the collector comes by.
        self._call.handler = NO_HANDLER
