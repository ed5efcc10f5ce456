"""One call at the server: what its handler gets, and how it answers from any thread."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from transport import call
from transport.compression import pack
from transport.http2 import frames, headers
from transport.http2.frames import Buffer, ErrorCode
from transport.http2.outgoing import Framed, Message, OnDropped, OnSent
from transport.http2.stream import Stream
from transport.messages import NEVER, OVER, PREFIX_BYTES, NoMessages, SkipMessage
from transport.serving import answer_frames
from transport.serving.handler import NO_HANDLER, CallHandler, NotGrpc
from transport.serving.request import Request
from transport.status import DEADLINE_EXCEEDED, OK, Code, Metadata, Status, StatusError, of_http

if TYPE_CHECKING:
    from transport.loop import Timer
    from transport.serving.server_connection import ServerConnection

_ABANDONED = Status(Code.CANCELLED, "nobody waits for the answer any more")
# A client resets a call at its own deadline. Here it passes as much later as its headers took, and
# as the client has rounded it: grpcio to two or three digits.
_HEADERS_S = 0.05
_ROUNDING = 0.01
# Up to here an answer is one piece with its headers: more is copied in more time than it saves.
_FRAMED_BYTES = 8 * 1024


class ServerCall(Stream):
    """A call as its handler sees it. What answers it may be called from any thread."""

    __slots__ = (
        "_accept",
        "_deadline",
        "authority",
        "began_s",
        "compression",
        "deadline_s",
        "done",
        "handler",
        "metadata",
        "missing_length",
        "path",
        "plain_next",
        "refused",
        "room_wanted",
        "server_connection",
        "started",
        "status",
    )

    def __init__(
        self, connection: "ServerConnection", stream_id: int, request: Request, max_bytes: int
    ) -> None:
        super().__init__(
            connection,
            stream_id,
            connection.initial_send_window,
            connection.options.stream_window,
            max_bytes,
        )
        self.server_connection = connection
        self.reader.encoding = request.encoding
        self.path = request.path
        self.metadata = request.metadata
        self.handler: CallHandler = NO_HANDLER
        self.done = False
        self.status = OK  # once done: what the client gets
        self.refused = False  # no handler has it
        self.compression = "identity"  # of answers, where the client takes it
        self.plain_next = False  # do not compress the next one
        self.room_wanted: Callable[[], None] | None = None
        self.began_s = time.monotonic()
        self.since_s = self.began_s
        self.deadline_s: float | None = None  # time.monotonic
        self._deadline: Timer | None = None
        self._accept = request.accept
        self.started = False
        # Bytes of DATA that content-length promised and that did not come, or surplus ones.
        self.missing_length = request.content_length
        if request.timeout_s is not None:
            self.deadline_s = self.since_s + request.timeout_s
            self._deadline = connection.loop.call_at(self.deadline_s, self._past_deadline)

    # --- for handlers

    @property
    def peer(self) -> str:
        """The client's address, as gRPC writes it: ipv4:127.0.0.1:1234."""
        return self.connection.peer_name()

    @property
    def message_began_ns(self) -> int:
        """When the first byte of the last message was seen (time.monotonic_ns)."""
        return self.reader.first_ns

    def time_remaining_s(self) -> float | None:
        """Seconds until the deadline; None without one."""
        return None if self.deadline_s is None else max(0.0, self.deadline_s - time.monotonic())

    def start(self, metadata: Metadata = ()) -> bool:
        """Send the initial metadata. False: nobody waits any more, or it was sent already."""
        frame = self._start_frame(metadata)
        with self.connection.lock:
            if self.done or self.started:
                return False
            self.started = True
            self.connection.sender.put_locked(self, frame)
        return True

    def send(
        self,
        buffers: Sequence[Buffer],
        on_sent: OnSent | None = None,
        on_dropped: OnDropped | None = None,
    ) -> bool:
        """Send a message, which lies in `buffers` one after the other; they are not copied.

        They must stay as they are until `on_sent` is called, see OnSent, or `on_dropped` in its
        place: the client takes the message no more. False: nobody waits any more, and neither is
        called. The call's `pending` are the bytes that wait for the client to take them.
        """
        message = self._message(buffers, on_sent, on_dropped)
        with self.connection.lock:
            if self.done:
                return False
            self.connection.sender.put_locked(self, *self._start_locked(), message)
        return True

    def finish(self, status: Status = OK) -> bool:
        """End the call. False: it had ended."""
        trailers = self._trailers(status)
        with self.connection.lock:
            if self.done:
                return False
            frames_ = (trailers if self.started else self._trailers_only(status),)
            self._done_locked(status)
            self.connection.sender.put_locked(self, *frames_)
        if not self.reader.idle:
            # Of a message that nobody gets any more.
            self.connection.loop.call_soon(self._drop_message)
        self._report_end()
        return True

    def answer(
        self,
        buffers: Sequence[Buffer],
        on_sent: OnSent | None = None,
        on_dropped: OnDropped | None = None,
    ) -> bool:
        """Send the only message and end the call with OK, in one write; see `send`."""
        if len(buffers) == 1 and self._response_encoding() == "identity":
            data = buffers[0]
            small = isinstance(data, bytes) and len(data) <= _FRAMED_BYTES
            if small and self._answer_framed(data, on_sent, on_dropped):
                return True
        message = self._message(buffers, on_sent, on_dropped)
        trailers = self._trailers(OK)
        with self.connection.lock:
            if self.done:
                return False
            start = self._start_locked()
            self._done_locked(OK)
            self.connection.sender.put_locked(self, *start, message, trailers)
        self._report_end()
        return True

    # --- frames

    def _answer_framed(
        self, data: Buffer, on_sent: OnSent | None, on_dropped: OnDropped | None
    ) -> bool:
        """`answer` a small message, where the windows have room; nothing is done elsewhere."""
        count = PREFIX_BYTES + len(data)
        framed = answer_frames.whole(self.stream_id, data)
        sender = self.connection.sender
        with self.connection.lock:
            if self.done or self.started or not sender.reserve_locked(self, count):
                return False
            self.started = True
            self._done_locked(OK)
            sender.put_locked(self, Framed(framed, count, on_sent, on_dropped))
        self._report_end()
        return True

    def _message(
        self, buffers: Sequence[Buffer], on_sent: OnSent | None, on_dropped: OnDropped | None
    ) -> Message:
        encoding = self._response_encoding()
        plain, self.plain_next = self.plain_next, False
        if encoding == "identity" or plain:
            return Message(buffers, on_sent=on_sent, on_dropped=on_dropped)
        packed = pack(buffers, encoding)
        return Message([packed], packed=True, on_sent=on_sent, on_dropped=on_dropped)

    def _response_encoding(self) -> str:
        return self.compression if self.compression in self._accept else "identity"

    def _start_locked(self) -> tuple[bytes, ...]:
        if self.started:
            return ()
        self.started = True
        return (self._start_frame(()),)

    def _start_frame(self, metadata: Metadata) -> bytes:
        most = self.connection.sender.max_frame
        return answer_frames.start(self.stream_id, self._response_encoding(), metadata, most)

    def _trailers(self, status: Status) -> bytes:
        return answer_frames.trailers(self.stream_id, status, self.connection.sender.max_frame)

    def _trailers_only(self, status: Status) -> bytes:
        return answer_frames.refusal(self.stream_id, status, self.connection.sender.max_frame)

    # --- events, in the I/O thread

    def admit(self, length: int) -> bool:
        """See Stream."""
        if self.done:
            # It may come before the client hears of the end.
            raise SkipMessage
        if self.server_connection.too_much_unread():
            self.server_connection.admit_later(self)
            return False
        return self.handler.admit(length)

    def room_bytes(self) -> int | None:
        """See Stream."""
        return self.handler.room_bytes()

    def ask_again(self) -> None:
        """Ask whether the message may come that was not admitted as answers were not read."""
        if self.closed or not self.reader.waiting:
            return
        self.guarded(self.reader.ask_again)
        self.open_window()

    @property
    def unwanted(self) -> bool:
        """See Stream."""
        return self.closed or self.done

    def stash(self, count: int) -> bool:
        """See Stream: within what all calls of the server may send ahead."""
        if self.done:
            return False
        if not self.server_connection.ahead.take(count):
            raise StatusError(
                Code.RESOURCE_EXHAUSTED,
                "the server has no room for the message, nor for more that wait for room",
            )
        return True

    def unstash(self, count: int) -> None:
        """See Stream."""
        self.server_connection.ahead.give_back(count)

    def count_data(self, length: int) -> None:
        """A DATA frame arrived, with `length` bytes beside its padding."""
        if self.missing_length is not None:
            self.missing_length -= length

    def check_receiving(self, now_s: float, most_s: float | None) -> None:
        """End a call whose message takes longer than its handler's bound, or else `most_s`."""
        reader = self.reader
        receive_s = self.handler.receive_s or most_s
        if receive_s is None or self.done or self.remote_ended or reader.waiting:
            return
        began_s = self.since_s if reader.idle else reader.began_ns / 1e9
        if reader.idle and self.handler.open_ended:
            return
        if now_s - began_s >= receive_s:
            self.failed(
                Status(Code.DEADLINE_EXCEEDED, f"the message did not come within {receive_s:g} s")
            )

    def refuse_http(self, status: int, text: str) -> None:
        """Answer a request that is not gRPC's once it is complete."""
        self.refused = True
        self.reader = NoMessages(self, 0)
        self.handler = NotGrpc(self, status, text)

    def finish_http(self, status: int, text: str) -> None:
        """Answer with an HTTP status, in words that any HTTP client shows."""
        ended = Status(of_http(status), text)
        block = headers.encode(
            [
                (":status", str(status)),
                ("content-type", "text/plain"),
                *call.encode_status(ended),
            ]
        )
        most = self.connection.sender.max_frame
        frame = frames.headers(self.stream_id, block, most, end_stream=False)
        body = Message.without_prefix(f"{text}\n".encode())
        with self.connection.lock:
            self._done_locked(ended)
            self.connection.sender.put_locked(self, frame, body)
        self._report_end()

    def arriving(self, message: memoryview, filled: int) -> int:
        """See Stream."""
        return NEVER if self.done else self.handler.arriving(message, filled)

    def deliver(self, message: memoryview) -> None:
        """See Stream."""
        self.since_s = time.monotonic()
        if not self.done:
            self.handler.message(message)

    def skipped(self, length: int, head: bytes) -> None:
        """See Stream."""
        self.since_s = time.monotonic()
        if not self.done:
            self.handler.skipped(length, head)

    def ended(self) -> None:
        """See Stream."""
        if not self.done:
            self.handler.half_closed()

    def failed(self, status: Status) -> None:
        """See Stream."""
        if self.finish(status):
            self.handler.cancelled()
        self._drop_message()

    def on_reset(self, code: int) -> None:
        """See Stream."""
        self.abandon(DEADLINE_EXCEEDED if self._about_to_expire() else _ABANDONED)

    def _about_to_expire(self) -> bool:
        """Whether the deadline has passed on the client's clock, as far as this side can know."""
        if self.deadline_s is None:
            return False
        slack_s = _HEADERS_S + _ROUNDING * (self.deadline_s - self.began_s)
        return time.monotonic() > self.deadline_s - slack_s

    def on_lost(self, text: str) -> None:
        """See Stream."""
        self.abandon()

    def on_framed(self) -> None:
        """See Outgoing."""
        if self.room_wanted is not None:
            self.room_wanted()

    def abandon(self, status: Status = _ABANDONED) -> None:
        """Nobody waits for the answer any more, and the client has `status`."""
        with self.connection.lock:
            was_done = self.done
            if not was_done:
                self._done_locked(status)
        if self.room_wanted is not None:
            self.room_wanted()
        if not was_done:
            self.handler.cancelled()
            self._report_end()
        self._drop_message()

    def cancel(self) -> None:
        """End the call as cancelled, at once; any thread."""
        self.reset(ErrorCode.CANCEL)
        self.connection.loop.call_soon(self.abandon)

    def _past_deadline(self) -> None:
        self.failed(DEADLINE_EXCEEDED)

    def _drop_message(self) -> None:
        """Let go of the received part of a message that nobody gets."""
        reader, self.reader = self.reader, OVER
        reader.drop()
        self.server_connection.dropped(reader.taken_bytes)

    def _done_locked(self, ended: Status) -> None:
        """The call has ended; `_report_end` follows, once the lock is released."""
        self.done = True
        self.status = ended
        if self._deadline is not None:
            self._deadline.cancel()

    def _report_end(self) -> None:
        """Hand the call to the server's observer, once."""
        observer = self.server_connection.on_call_ended
        if observer is None:
            return
        try:
            observer(self)
        except Exception:
            self.connection.log.exception("the observer of calls failed")
