"""Answer one ModelStreamInfer call, each message in its turn, without a thread.

The I/O thread decodes and queues messages as they arrive; answers go out in order, from the thread
that completes the first one that is due. Bytes read ahead are bounded per stream: while there is no
room, the stream's window stays shut, which slows down a sender that is faster than the model.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from protos.codec import encode_stream_error, encode_stream_response
from protos.request_decoding import request_id_of
from server.batching import handover
from server.batching.outcome import Outcome
from server.batching.request import Caller, Result
from server.errors import ServerStopping, ServingError, StreamIdle
from server.rpc import status as rpc_status
from server.rpc.accounting.pending import Pending
from server.rpc.accounting.request_ends import STREAM_METHOD
from server.rpc.idle_trim import IdleTrim
from server.rpc.inference import Inference
from server.rpc.native import status
from server.rpc.native.preparation import Preparation
from server.rpc.native.room import Room
from server.rpc.servicer import StreamLimits
from server.rpc.thread_pools import InFlight
from transport.http2.outgoing import OnSent
from transport.loop import Timer
from transport.messages import SkipMessage
from transport.serving.handler import NO_HANDLER, CallHandler
from transport.serving.server_call import ServerCall
from transport.status import OK, Status
from transport.workers import Workers

# Messages of a stream that are not answered: their answers may be much larger than they are.
_MESSAGES_AHEAD = 256


@dataclass(eq=False, slots=True)
class _Entry:
    """A message that arrived: what it waits for, or why it was refused."""

    room: Room
    request_id: str = ""
    pending: Pending | None = None
    error: Exception | None = None
    done: bool = False


class StreamCall(CallHandler):
    """One open stream."""

    open_ended = True

    def __init__(
        self,
        call: ServerCall,
        inference: Inference,
        limits: StreamLimits,
        workers: Workers,
        calls: InFlight,
        idle_trim: IdleTrim,
    ) -> None:
        """Count the stream. StatusError when as many are open as may be.

        `workers` decode messages that take long.
        """
        if not calls.enter():
            raise status.error(calls.refusal())
        self._call = call
        self._inference = inference
        self._limits = limits
        self._workers = workers
        # The thread that takes it counts the stream off: however it ends, and whatever fails then.
        self._counted = [calls]
        self._idle_trim = idle_trim
        self._caller = Caller(
            call.peer, status.deadline_ns(call), method=STREAM_METHOD, metadata=call.metadata
        )
        # The error of a request ends the stream instead of being its answer.
        self._errors_end_it = ("triton_grpc_error", "true") in call.metadata
        self._lock = threading.Lock()
        self._entries: deque[_Entry] = deque()
        self._ahead_bytes = 0
        self._coming_bytes = 0  # of these, for the message that is under way
        self._length_waiting: int | None = None
        self._room = self._new_room()
        # Of the last message, if that takes long: no other one is taken meanwhile.
        self._preparation: Preparation | None = None
        self._sending = threading.Lock()
        self._end: Status | None = None
        self._active_s = time.monotonic()
        idle_trim.began(limits.read_ahead_bytes)
        self._idle_timer: Timer | None = None
        if limits.idle_s:
            self._check_idle_in(limits.idle_s)

    # --- messages, in the I/O thread

    def admit(self, length: int) -> bool:
        """Take room for a message, of the stream's and of the server's."""
        if self._inference.budget.refusal(length) is not None:
            raise SkipMessage
        with self._lock:
            if not self._take_ahead_locked(length):
                self._length_waiting = length
                full = True
            else:
                full = False
        if full:
            self._inference.flush()
            return False
        with status.RAISED:
            return self._room.ask(length)

    def room_bytes(self) -> int:
        """See CallHandler."""
        # May be a little old: what is given back meanwhile is seen with the next message.
        return max(0, self._limits.read_ahead_bytes - self._ahead_bytes)

    def message(self, message: memoryview) -> None:
        """Decode a message and queue it."""
        room, self._room = self._room, self._new_room()
        if room.grown:
            room.keep(len(message))
        self._active_s = time.monotonic()
        entry = _Entry(room)
        give_back = partial(self._give_back, room, len(message))
        with self._lock:
            self._coming_bytes = 0
            stopping = self._end is not None
            if not stopping:
                self._entries.append(entry)
        if stopping:
            give_back()
            room.give_back_answer()
            return
        arrived_ns = time.monotonic_ns()
        receive_ns = arrived_ns - self._call.message_began_ns
        self._preparation = preparation = Preparation(
            self._call,
            self._inference,
            self._workers,
            self._idle_trim,
            self._caller,
            room,
            give_back,
            partial(self._ready, entry, give_back),
        )
        preparation.start(message, arrived_ns, receive_ns)

    def _ready(
        self,
        entry: _Entry,
        give_back: Callable[[], None],
        pending: Pending | None,
        error: Exception | None,
        request_id: str,
    ) -> None:
        """A message is queued, or refused."""
        self._preparation = None
        if self._length_waiting is not None:
            with self._lock:
                self._go_on_locked()
        entry.request_id = request_id
        if pending is None:
            give_back()
            if error is not None:
                entry.error, entry.done = error, True
                self._answer()
            return
        entry.pending = pending
        if self._call.done:
            # Another thread has ended the call, and may not have seen what it has to drop.
            self._inference.abandon(pending, self._call.status)
            entry.room.give_back_answer()
        pending.request.future.add_done_callback(partial(self._computed, entry))

    def skipped(self, length: int, head: bytes) -> None:
        """Answer a message with its error that is larger than the whole budget."""
        self._active_s = time.monotonic()
        error = self._inference.budget.refusal(length)
        assert error is not None
        room, self._room = self._room, self._new_room()
        entry = _Entry(room, request_id_of(head), error=error, done=True)
        self._inference.ends.refuse(
            self._caller,
            rpc_status.described(error),
            time.monotonic_ns(),
            length,
            request_id=entry.request_id,
        )
        # What it took while it was compressed.
        room.give_back()
        with self._lock:
            self._ahead_bytes -= self._coming_bytes
            self._coming_bytes = 0
            if self._end is not None:
                return
            self._entries.append(entry)
        self._answer()

    def half_closed(self) -> None:
        """End the stream once every message is answered."""
        self._end_with(OK)

    def cancelled(self) -> None:
        """Drop all that waits."""
        try:
            self._drop()
        finally:
            self._leave()

    def _drop(self) -> None:
        with self._lock:
            entries = list(self._entries)
            self._entries.clear()
            self._end = OK
        ended = self._call.status
        for entry in entries:
            if entry.pending is not None:
                self._inference.abandon(entry.pending, ended)
            entry.room.give_back_answer()
        preparation = self._preparation
        if preparation is not None:
            self._call.connection.loop.call_soon(partial(preparation.cancel, ended))
        self._room.give_back()

    def stop(self) -> None:
        """End the stream once all that arrived is answered; any thread."""
        self._end_with(status.of(ServerStopping("the server is stopping")))

    # --- room

    def _new_room(self) -> Room:
        return Room(self._inference.budget, self._call, self._inference.flush)

    def _take_ahead_locked(self, length: int) -> bool:
        # A compressed message asks twice.
        self._ahead_bytes -= self._coming_bytes
        self._coming_bytes = 0
        # A message larger than all that may be read ahead still passes, alone.
        most = self._limits.read_ahead_bytes
        if self._ahead_bytes and self._ahead_bytes + length > most:
            return False
        if len(self._entries) >= _MESSAGES_AHEAD or self._preparation is not None:
            return False
        self._ahead_bytes += length
        self._coming_bytes = length
        return True

    def _give_back(self, room: Room, length: int) -> None:
        """A message is needed no more; any thread."""
        room.give_back_message()
        with self._lock:
            self._ahead_bytes -= length
            self._go_on_locked()

    def _go_on_locked(self) -> None:
        """Let the message come that waits for others of its stream, if there is room now."""
        waiting = self._length_waiting
        if waiting is not None and self._take_ahead_locked(waiting):
            self._length_waiting = None
            self._call.connection.loop.call_soon(partial(self._ask_room, waiting))

    def _ask_room(self, length: int) -> None:
        try:
            if not self._call.done and self._room.ask(length):
                self._call.resume()
        except ServingError as error:
            self._fail(status.of(error))

    # --- answers, in any thread

    def _computed(self, entry: _Entry, _: Outcome[Result]) -> None:
        entry.done = True
        self._answer()

    def _answer(self) -> None:
        """Send every answer that is due, in the order of the messages."""
        # One thread sends at a time; another one's entry is seen by it, or here after it.
        with self._sending:
            while (entry := self._next()) is not None:
                self._send(entry)
            self._finish_if_over()

    def _next(self) -> _Entry | None:
        with self._lock:
            if self._entries and self._entries[0].done:
                entry = self._entries.popleft()
                self._go_on_locked()
                return entry
            return None

    def _send(self, entry: _Entry) -> None:
        error, pending = entry.error, entry.pending
        gone = entry.room.give_back_answer
        on_sent: OnSent = partial(_sent, gone)
        if error is None:
            assert pending is not None
            try:
                answer = self._inference.finish(
                    pending, encode_stream_response, triton_final_response=True
                )
                answer.on_gone = gone
                data, on_sent = answer.data, answer.sent
            except Exception as failure:
                error = failure
        if error is not None:
            if self._errors_end_it:
                gone()
                self._fail(status.of(error))
                return
            data = encode_stream_error(entry.request_id, rpc_status.of(error)[1])
        handover.gather(self._call.connection.sender)
        if not self._call.send([data], on_sent, gone):
            gone()

    def _fail(self, ended: Status) -> None:
        if self._call.finish(ended):
            self.cancelled()

    def _end_with(self, ended: Status) -> None:
        with self._lock:
            if self._end is None:
                self._end = ended
        self._answer()

    def _finish_if_over(self) -> None:
        with self._lock:
            ended = self._end if not self._entries else None
        if ended is None:
            return
        over = True
        try:
            over = self._call.finish(ended)
        finally:
            # Also where that failed: a server that drains waits for the streams that it counts.
            if over:
                self._leave()

    def _leave(self) -> None:
        if self._idle_timer is not None:
            # It would keep the stream until it is due.
            self._idle_timer.cancel()
        self._idle_trim.ended(self._limits.read_ahead_bytes)
        try:
            self._counted.pop().leave()
        except IndexError:
            return
        # Call and handler would keep each other until the collector comes by.
        self._call.handler = NO_HANDLER

    def _check_idle_in(self, seconds: float) -> None:
        self._idle_timer = timer = self._call.connection.loop.call_later(seconds, self._check_idle)
        if self._call.done:
            timer.cancel()

    def _check_idle(self) -> None:
        if self._call.done:
            return
        now_s = time.monotonic()
        with self._lock:
            # A message that others keep out is not the client's silence; answers that it does not
            # read are.
            kept_out = (
                self._call.reader.waiting and not self._call.server_connection.too_much_unread()
            )
            if self._entries or kept_out:
                self._active_s = now_s
        left_s = self._active_s + self._limits.idle_s - now_s
        if left_s > 0:
            self._check_idle_in(left_s)
            return
        idle = StreamIdle(f"the stream sent no message for {self._limits.idle_s:g} s")
        self._fail(status.of(idle))


def _sent(gone: Callable[[], None], _: int) -> None:
    gone()
