"""Answer one ModelInfer call: decode and queue in the I/O thread, answer from the engine's.

Rows of a large message are queued while it arrives, where they can be (`early_rows.py`).

What bounds it: the call is counted from its headers to its end, and room for its message is
taken before the payload is read.
"""

import time

from protos.codec import encode_response
from server.batching import handover
from server.batching.outcome import Outcome
from server.batching.request import Caller, Result
from server.errors import ServingError
from server.rpc.accounting.pending import Pending
from server.rpc.accounting.request_ends import METHOD
from server.rpc.idle_trim import IdleTrim
from server.rpc.inference import Inference
from server.rpc.native import status
from server.rpc.native.early_rows import EarlyRows
from server.rpc.native.preparation import Preparation
from server.rpc.native.room import Room
from server.rpc.thread_pools import InFlight
from transport.messages import NEVER
from transport.serving.handler import NO_HANDLER, CallHandler
from transport.serving.server_call import ServerCall
from transport.status import Code, StatusError
from transport.workers import Workers


class UnaryCall(CallHandler):
    """One call. The I/O thread calls all but `_answer`."""

    __slots__ = (
        "_begun",
        "_call",
        "_counted",
        "_early",
        "_idle_trim",
        "_inference",
        "_length",
        "_message",
        "_pending",
        "_preparation",
        "_room",
        "_workers",
    )

    def __init__(
        self,
        call: ServerCall,
        inference: Inference,
        workers: Workers,
        calls: InFlight,
        idle_trim: IdleTrim,
    ) -> None:
        """Count the call. StatusError when as many are open as may be.

        `workers` decode messages that take long.
        """
        if not calls.enter():
            raise status.error(calls.refusal())
        self._call = call
        # The thread that takes it counts the call off: however it ends, and whatever fails then.
        self._counted = [calls]
        self._inference = inference
        self._workers = workers
        self._idle_trim = idle_trim
        self._room = Room(inference.budget, call, inference.flush)
        self._message: memoryview | None = None
        self._length = 0
        self._early: EarlyRows | None = None
        self._preparation: Preparation | None = None
        self._pending: Pending | None = None
        self._begun = False  # its message was complete

    def admit(self, length: int) -> bool:
        """Take room for the message."""
        if self._message is not None:
            raise StatusError(Code.UNIMPLEMENTED, "got a second message, expected one")
        try:
            return self._room.ask(length)
        except ServingError as error:
            raise status.error(error) from None

    def arriving(self, message: memoryview, filled: int) -> int:
        """Queue rows that are there, if nothing that follows can change the request."""
        if self._early is None:
            self._early = EarlyRows.of(message, filled, self._inference, self._caller())
        return NEVER if self._early is None else self._early.queue(filled, self._call)

    def message(self, message: memoryview) -> None:
        """Keep the message until the client has said that it is the only one."""
        self._message = message
        if self._room.grown:
            self._room.keep(len(message))

    def half_closed(self) -> None:
        """Decode the message and queue it."""
        message, self._message = self._message, None
        if message is None:
            raise StatusError(Code.UNIMPLEMENTED, "got no message, expected one")
        self._length = len(message)
        self._idle_trim.began(self._length)
        arrived_ns = time.monotonic_ns()
        call, early = self._call, self._early
        self._begun = True
        pending = None if early is None else early.finish()
        if pending is not None:
            pending.cover = self._room.cover
            self._give_back()
            self._ready(pending, None, "")
            return
        give_back = self._room.give_back_message if early is None else self._give_back
        self._preparation = preparation = Preparation(
            call,
            self._inference,
            self._workers,
            self._idle_trim,
            self._caller(),
            self._room,
            give_back,
            self._ready,
        )
        preparation.start(message, arrived_ns, arrived_ns - call.message_began_ns)

    def _ready(self, pending: Pending | None, error: Exception | None, request_id: str) -> None:
        """The message is queued, or refused."""
        self._preparation = None
        if pending is not None:
            self._pending = pending
            pending.request.future.add_done_callback(self._answer)
        elif error is not None:
            self._call.failed(status.of(error))
        else:
            self._give_back()  # cancelled

    def cancelled(self) -> None:
        """Drop what waits."""
        try:
            self._drop()
        finally:
            self._end()

    def _drop(self) -> None:
        pending, self._pending = self._pending, None
        self._message = None
        call = self._call
        preparation = self._preparation
        if self._early is not None:
            self._early.drop()
        if pending is not None:
            # Its bytes are needed until the batch under way is done.
            self._inference.abandon(pending, call.status)
        elif preparation is not None:
            preparation.cancel(call.status)
        else:
            self._give_back()
        self._room.give_back_answer()
        if not self._begun:
            began_ns = int(call.began_s * 1e9)
            length = call.reader.last_length
            self._inference.ends.refuse(self._caller(), call.status, began_ns, length)

    def _caller(self) -> Caller:
        call = self._call
        return Caller(call.peer, status.deadline_ns(call), method=METHOD, metadata=call.metadata)

    def _answer(self, _: Outcome[Result]) -> None:
        pending, self._pending = self._pending, None
        if pending is None:
            return
        ended = True
        try:
            answer = self._inference.finish(pending, encode_response)
            answer.on_gone = gone = self._room.give_back_answer
            handover.gather(self._call.connection.sender)
            ended = self._call.answer([answer.data], answer.sent, gone)
            if not ended:
                gone()
        except Exception as error:
            try:
                self._call.finish(status.of(error))
            finally:
                self._room.give_back_answer()
        finally:
            # Also where that failed: a server that drains waits for the calls that it counts.
            if ended:
                self._end()

    def _give_back(self) -> None:
        """Give the room back; bytes of early rows are needed until the batch under way is done."""
        if self._early is None:
            self._room.give_back_message()
        else:
            self._early.released.add_done_callback(lambda _: self._room.give_back_message())

    def _end(self) -> None:
        try:
            calls = self._counted.pop()
        except IndexError:
            return
        calls.leave()
        self._idle_trim.ended(self._length)
        # Call and handler would keep each other, and the answer, until the collector comes by.
        self._call.handler = NO_HANDLER
