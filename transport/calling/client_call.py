"""One call as the client sees it: it can be waited for, iterated, cancelled, from any thread."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from transport import call as call_headers
from transport.calling.call_spec import CallSpec, Dispatcher
from transport.calling.client_stream import ClientStream
from transport.compression import pack
from transport.http2 import frames, headers
from transport.http2.frames import Buffer, ErrorCode
from transport.http2.outgoing import Message, OnSent
from transport.loop import Timer
from transport.status import DEADLINE_EXCEEDED, Code, Metadata, Status


class CallFailed(Exception):
    """A call that did not end with OK."""

    def __init__(self, ended: "ClientCall", status: Status) -> None:
        super().__init__(f"{status.code.name}: {status.text}")
        self.status = status
        self._call = ended

    def code(self) -> Code:
        """The status code."""
        return self.status.code

    def details(self) -> str:
        """The status's text."""
        return self.status.text

    def trailing_metadata(self) -> Metadata:
        """Metadata sent with the status."""
        return self.status.trailing

    def initial_metadata(self) -> Metadata:
        """Metadata sent before the first message."""
        return self._call.initial_metadata()


class FutureTimeout(Exception):
    """`result` waited as long as it was allowed to."""


class ClientCall:
    """See the module. For streams: iterate over it, and `send` and `half_close`."""

    def __init__(self, channel: Dispatcher, spec: CallSpec) -> None:
        self.wait_for_ready = spec.wait_for_ready
        self._channel = channel
        self._spec = spec
        self._changed = threading.Condition(threading.Lock())
        self._stream: ClientStream | None = None
        # Before there is a stream, and of a call that may be begun again.
        self._to_send: list[Message] = []
        self._replay: tuple[Sequence[Buffer], ...] | None = None
        self._on_sent: OnSent | None = None
        self._half_closed = False
        # Each with the instant at which its first byte was seen.
        self._answers: deque[tuple[memoryview, int]] = deque()
        self.answer_began_ns = 0  # of the message that was taken last, time.monotonic_ns
        self._answer_bytes = 0
        self._held = False
        self._initial: Metadata | None = None
        self._status: Status | None = None
        self._callbacks: list[Callable[[ClientCall], None]] = []
        self._listener: Callable[[], None] | None = None
        self._deadline: Timer | None = None
        self._deadline_s: float | None = None
        if spec.timeout_s is not None:
            self._deadline_s = time.monotonic() + spec.timeout_s
            self._deadline = channel.loop.call_at(self._deadline_s, self._past_deadline)

    # --- sending

    def begin(self) -> None:
        """Start a call whose messages are sent with `send`."""
        self.dispatch()

    def begin_unary(self, buffers: Sequence[Buffer], on_sent: OnSent | None = None) -> None:
        """Start a call of one message, which is kept until it is known to have been seen."""
        self._replay = (buffers,)
        self._on_sent = on_sent
        self._half_closed = True
        self._to_send = [self._message(buffers, end_stream=True)]
        self.dispatch()

    def send(self, buffers: Sequence[Buffer]) -> bool:
        """Send a message, which lies in `buffers`, and wait until the kernel has it.

        From then on the buffers may be used for something else. False: the call has ended.
        """
        message = self._message(buffers)
        sent = False

        def on_sent(began_ns: int) -> None:
            nonlocal sent
            sent = True
            with self._changed:
                self._changed.notify_all()

        message.on_sent = on_sent
        with self._changed:
            while (stream := self._stream) is None and self._status is None:
                self._changed.wait()
        if stream is None:
            return False
        sender = stream.connection.sender
        with stream.connection.lock:
            pumps = not stream.closed and sender.put_pumped_locked(stream, message)
        if pumps:
            sender.pump_on(stream)
        while not sent and self._status is None:
            if not sender.pump(stream):
                with self._changed:
                    self._changed.wait_for(lambda: sent or self._status is not None)
        return self._status is None

    def send_soon(self, buffers: Sequence[Buffer], on_sent: OnSent) -> None:
        """As `send`, without waiting: `on_sent` is called when the kernel has the message.

        It is not called if the call ends before.
        """
        message = self._message(buffers)
        message.on_sent = on_sent
        with self._changed:
            stream = self._stream
            if stream is None:
                self._to_send.append(message)
                return
        with stream.connection.lock:
            if not stream.closed:
                stream.connection.sender.put_locked(stream, message)

    def half_close(self) -> None:
        """Send no more."""
        with self._changed:
            self._half_closed = True
            stream = self._stream
        if stream is None:
            return
        with stream.connection.lock:
            self._half_close_locked(stream)

    def _half_close_locked(self, stream: ClientStream) -> None:
        if not stream.closed:
            end = frames.header(0, frames.DATA, frames.END_STREAM, stream.stream_id)
            stream.connection.sender.put_locked(stream, end)

    def _message(self, buffers: Sequence[Buffer], *, end_stream: bool = False) -> Message:
        if self._spec.compression == "identity":
            return Message(buffers, end_stream=end_stream, on_sent=self._on_sent)
        packed = pack(buffers, self._spec.compression)
        return Message([packed], end_stream=end_stream, packed=True, on_sent=self._on_sent)

    # --- the channel's side

    def dispatch(self) -> None:
        """Begin on a connection, now or when there is one; any thread."""
        if self._status is not None:
            return
        block = self._spec.block
        if self._deadline_s is not None:
            left_s = self._deadline_s - time.monotonic()
            block += headers.encode_once("grpc-timeout", call_headers.encode_timeout(left_s))
        self._channel.dispatch(self, block)

    def attach_locked(self, stream: ClientStream) -> None:
        """The call has a stream; its connection's lock is held."""
        with self._changed:
            self._stream = stream
            messages, self._to_send = self._to_send, []
            self._changed.notify_all()
            half_close = self._half_closed and self._replay is None
            ended = self._status is not None
        if ended:
            stream.connection.reset_locked(stream, ErrorCode.CANCEL)
            return
        stream.connection.sender.put_locked(stream, *messages)
        if half_close:
            self._half_close_locked(stream)

    def try_again(self) -> bool:
        """Begin once more a call that the server has not seen; False where that cannot be."""
        replay = self._replay
        if replay is None or self._initial is not None or self._status is not None:
            return False
        with self._changed:
            self._stream = None
            self._to_send = [self._message(buffers, end_stream=True) for buffers in replay]
        self._channel.loop.call_soon(self.dispatch)
        return True

    # --- events, in the I/O thread

    def admit(self, length: int) -> bool:
        """Whether the answers that wait leave room."""
        with self._changed:
            held = self._answer_bytes > self._spec.receive_ahead_bytes
            self._held = held
        return not held

    def on_start(self, metadata: Metadata) -> None:
        """The answer begins."""
        with self._changed:
            self._initial = metadata
            self._replay = None
            self._changed.notify_all()

    def on_message(self, message: memoryview, began_ns: int) -> None:
        """A message of the answer arrived, whose first byte was seen at `began_ns`."""
        with self._changed:
            self._answers.append((message, began_ns))
            self._answer_bytes += len(message)
            self._changed.notify_all()
        if self._listener is not None:
            self._listener()

    def on_end(self, status: Status) -> None:
        """The call has ended; any thread that holds no lock."""
        with self._changed:
            if self._status is not None:
                return
            self._status = status
            self._replay = None
            callbacks, self._callbacks = self._callbacks, []
            self._changed.notify_all()
        if self._deadline is not None:
            self._deadline.cancel()
        self._channel.forget(self)
        for callback in callbacks:
            callback(self)

    def _past_deadline(self) -> None:
        self.end(DEADLINE_EXCEEDED)

    def end(self, status: Status) -> bool:
        """End the call here and at the server; False: it had ended. Any thread."""
        if self._status is not None:
            return False
        self.on_end(status)
        stream = self._stream
        if stream is not None:
            stream.reset(ErrorCode.CANCEL)
        return True

    # --- for callers

    @property
    def server(self) -> str:
        """The address that the last attempt went to; empty before there was one."""
        stream = self._stream
        return "" if stream is None else stream.connection.peer_name()

    def cancel(self) -> bool:
        """End the call as CANCELLED; False: it had ended."""
        return self.end(Status(Code.CANCELLED, "Locally cancelled by application!"))

    def done(self) -> bool:
        """Whether the call has ended."""
        return self._status is not None

    def is_active(self) -> bool:
        """Whether the call has not ended."""
        return self._status is None

    def cancelled(self) -> bool:
        """Whether the call ended as CANCELLED."""
        return self._status is not None and self._status.code is Code.CANCELLED

    def running(self) -> bool:
        """Whether the call has not ended."""
        return self._status is None

    def time_remaining(self) -> float | None:
        """Seconds until the deadline; None without one."""
        if self._deadline_s is None:
            return None
        return max(0.0, self._deadline_s - time.monotonic())

    def initial_metadata(self) -> Metadata:
        """Metadata before the first message; waits for it."""
        with self._changed:
            self._changed.wait_for(lambda: self._initial is not None or self._status is not None)
            return self._initial or ()

    def status(self) -> Status:
        """How the call ended; waits for it."""
        with self._changed:
            while self._status is None:
                self._changed.wait()
            return self._status

    def code(self) -> Code:
        """The status code; waits for it."""
        return self.status().code

    def details(self) -> str:
        """The status's text; waits for it."""
        return self.status().text

    def trailing_metadata(self) -> Metadata:
        """Metadata sent with the status; waits for it."""
        return self.status().trailing

    def add_done_callback(self, callback: Callable[["ClientCall"], None]) -> None:
        """Call `callback(call)` once the call has ended, from the I/O thread."""
        with self._changed:
            if self._status is None:
                self._callbacks.append(callback)
                return
        callback(self)

    def result(self, timeout: float | None = None) -> Any:
        """The only message of the answer; CallFailed, or FutureTimeout after `timeout` seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._status is not None, timeout):
                raise FutureTimeout
        failure = self.exception()
        if failure is not None:
            raise failure
        message, self.answer_began_ns = self._answers[0]
        return self._deserialized(message)

    def exception(self, timeout: float | None = None) -> CallFailed | None:
        """What `result` raises; None where it returns."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._status is not None, timeout):
                raise FutureTimeout
        status = self._status
        assert status is not None
        if status.code is Code.OK and len(self._answers) != 1:
            status = Status(Code.UNIMPLEMENTED, f"got {len(self._answers)} messages, expected one")
        return None if status.code is Code.OK else CallFailed(self, status)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        with self._changed:
            while not self._answers and self._status is None:
                self._changed.wait()
            taken = self._take_locked()
        if taken is None:
            status = self._status
            assert status is not None
            if status.code is Code.OK:
                raise StopIteration
            raise CallFailed(self, status)
        return self._received(*taken)

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener()` after each message that arrives, from the I/O thread; see `take`."""
        self._listener = listener

    def take(self) -> Any:
        """A message of a stream's answer, without waiting; None if none has arrived."""
        with self._changed:
            taken = self._take_locked()
        return None if taken is None else self._received(*taken)

    def _take_locked(self) -> tuple[memoryview, ClientStream | None] | None:
        """A message, and the stream if that waits for room to go on."""
        if not self._answers:
            return None
        message, self.answer_began_ns = self._answers.popleft()
        self._answer_bytes -= len(message)
        held, self._held = self._held, False
        return message, self._stream if held else None

    def _received(self, message: memoryview, held: ClientStream | None) -> Any:
        if held is not None:
            held.resume()
        return self._deserialized(message)

    def _deserialized(self, message: memoryview) -> Any:
        deserialize = self._spec.deserialize
        return message if deserialize is None else deserialize(message)
