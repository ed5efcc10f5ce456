"""What the frames of one connection mean that are not DATA: headers, settings, pings, windows."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import ClassVar

from transport.http2 import frames, limits
from transport.http2.frames import ConnectionFault, ErrorCode, StreamFault
from transport.http2.limits import Rate
from transport.http2.receiving import Receiver
from transport.http2.sending import Sender
from transport.http2.stream import Stream

# Of HEADERS: padding or a priority is around the block.
_PRECEDED = frames.PADDED | frames.PRIORITY_FLAG
# Streams that this side reset: frames that were under way are not the peer's fault.
_REMEMBERED_RESETS = 1_000


class ControlFrames:
    """The part of `Connection` that reads control frames; the I/O thread calls it."""

    log: ClassVar[logging.Logger] = logging.getLogger("transport")
    lock: threading.Lock
    sender: Sender
    receiver: Receiver
    streams: dict[int, Stream]

    def __init__(self) -> None:
        self.peer_settings: dict[int, int] = {}
        self.initial_send_window = frames.DEFAULT_WINDOW
        self.settings_seen = False
        self.pinged_s: float | None = None  # when the PING was sent that is not answered
        self._on_pong: Callable[[], None] | None = None
        self._block: list[bytes] = []  # of HEADERS that are continued
        self._block_stream, self._block_flags = 0, 0
        self._reset_order: deque[int] = deque()
        self._reset_ids: set[int] = set()
        self._resets = Rate(limits.MAX_RESETS_PER_S, "too many reset streams")
        self._idle_frames = Rate(limits.MAX_IDLE_FRAMES_PER_S, "too many frames without content")
        self._explained = 0  # small increments of windows, by the messages that were sent
        self._turns_at_ping = 0
        self._pings = Rate(limits.MAX_PINGS_PER_S, limits.TOO_MANY_PINGS)

    def is_idle(self, stream_id: int) -> bool:
        """Whether a stream was never opened."""
        raise NotImplementedError

    def reset(self, stream: Stream, code: ErrorCode) -> None:
        """End a stream with RST_STREAM; any thread."""
        raise NotImplementedError

    def forget_stream(self, stream: Stream) -> None:
        """The stream is over on both sides; its last messages may still wait to be read."""
        raise NotImplementedError

    def remember_reset(self, stream_id: int) -> None:
        """Frames of a stream may still be under way that this side has reset."""
        self._reset_ids.add(stream_id)
        self._reset_order.append(stream_id)
        if len(self._reset_order) > _REMEMBERED_RESETS:
            self._reset_ids.discard(self._reset_order.popleft())

    def on_stream_fault(self, fault: StreamFault) -> None:
        """See FrameHandler."""
        self._resets.count()
        stream = self.streams.get(fault.stream_id)
        self.log.info("stream %d is reset: %s: %s", fault.stream_id, fault.code.name, fault.text)
        if stream is None:
            self.remember_reset(fault.stream_id)
            self.sender.control(frames.rst_stream(fault.stream_id, fault.code))
            return
        self.reset(stream, fault.code)
        stream.on_reset(fault.code)

    def check_closed(self, stream_id: int, name: str) -> None:
        """A frame of a stream that is not open: allowed only while its reset is under way."""
        if stream_id == 0 or self.is_idle(stream_id):
            raise ConnectionFault(
                ErrorCode.PROTOCOL_ERROR, f"got {name} on stream {stream_id}, which is not open"
            )
        if stream_id not in self._reset_ids:
            raise StreamFault(
                stream_id, ErrorCode.STREAM_CLOSED, f"got {name} on a stream that has ended"
            )

    def on_unknown_frame(self) -> None:
        """See FrameHandler."""
        if not self.settings_seen:
            raise ConnectionFault(
                ErrorCode.PROTOCOL_ERROR, "got a frame of an unknown type before SETTINGS"
            )
        self._idle_frames.count()

    def on_frame(self, kind: int, flags: int, stream_id: int, payload: memoryview) -> None:
        """See FrameHandler."""
        if not self.settings_seen:
            if kind != frames.SETTINGS or flags & frames.ACK:
                raise ConnectionFault(
                    ErrorCode.PROTOCOL_ERROR, f"got a frame of type {kind} before SETTINGS"
                )
            self.settings_seen = True
        _HANDLERS[kind](self, flags, stream_id, payload)

    def _headers(self, flags: int, stream_id: int, payload: memoryview) -> None:
        if not stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "got HEADERS on stream 0")
        priority_fault = None
        try:
            block = (
                frames.header_fragment(payload, flags, stream_id)
                if flags & _PRECEDED
                else bytes(payload)
            )
        except StreamFault as fault:
            # The block has to be decoded all the same, for HPACK's state.
            priority_fault = fault
            block = bytes(frames.without_padding(payload, flags)[5:])
        if not flags & frames.END_HEADERS:
            self._block = [block]
            self._block_stream, self._block_flags = stream_id, flags
            self.receiver.expect_continuation(True)
            return
        self.on_headers(stream_id, block, end_stream=bool(flags & frames.END_STREAM))
        if priority_fault is not None:
            raise priority_fault

    def _continuation(self, flags: int, stream_id: int, payload: memoryview) -> None:
        if not self._block or stream_id != self._block_stream:
            raise ConnectionFault(
                ErrorCode.PROTOCOL_ERROR, f"got CONTINUATION of stream {stream_id}, not expected"
            )
        self._block.append(bytes(payload))
        size = sum(map(len, self._block))
        if len(self._block) > limits.MAX_CONTINUATIONS or size > limits.MAX_BLOCK_BYTES:
            self.on_endless_headers(stream_id)
            raise ConnectionFault(
                ErrorCode.ENHANCE_YOUR_CALM,
                f"got a header block of {size} bytes in {len(self._block)} frames",
            )
        if flags & frames.END_HEADERS:
            block, self._block = b"".join(self._block), []
            self.receiver.expect_continuation(False)
            ends = bool(self._block_flags & frames.END_STREAM)
            self.on_headers(stream_id, block, end_stream=ends)

    def on_headers(self, stream_id: int, block: bytes, *, end_stream: bool) -> None:
        """A whole header block."""
        raise NotImplementedError

    def on_endless_headers(self, stream_id: int) -> None:
        """The header block of a stream is so large that the connection ends."""

    def _priority(self, flags: int, stream_id: int, payload: memoryview) -> None:
        if not stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "got PRIORITY on stream 0")
        self._idle_frames.count()
        frames.check_priority(payload, stream_id)

    def _rst_stream(self, flags: int, stream_id: int, payload: memoryview) -> None:
        code = frames.parse_word("RST_STREAM", payload)
        if not stream_id or self.is_idle(stream_id):
            raise ConnectionFault(
                ErrorCode.PROTOCOL_ERROR, f"got RST_STREAM on stream {stream_id}, which is idle"
            )
        stream = self.streams.get(stream_id)
        if stream is None:
            self._idle_frames.count()
            return
        self.count_reset()
        stream.closed = True
        with self.lock:
            self.sender.drop_locked(stream)
            self.forget_stream(stream)
        stream.on_reset(code)

    def count_reset(self) -> None:
        """The peer reset a stream."""
        self._resets.count()

    def _settings(self, flags: int, stream_id: int, payload: memoryview) -> None:
        if stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"got SETTINGS on stream {stream_id}")
        self._idle_frames.count()
        if flags & frames.ACK:
            if payload:
                raise frames.wrong_size("SETTINGS with ACK", len(payload), "0")
            return
        values = dict(frames.parse_settings(payload))
        with self.lock:
            # Behind what the old windows allowed, and before what the new ones allow.
            self.sender.queue_control_locked(frames.SETTINGS_ACK)
            self._apply_settings_locked(values)
        self.on_settings()

    def _apply_settings_locked(self, values: dict[int, int]) -> None:
        self.peer_settings.update(values)
        self.sender.max_frame = values.get(frames.MAX_FRAME_SIZE, self.sender.max_frame)
        window = values.get(frames.INITIAL_WINDOW_SIZE)
        if window is None:
            return
        more = window - self.initial_send_window
        self.initial_send_window = window
        for stream in list(self.streams.values()):
            stream.send_window += more
            if stream.send_window > frames.MAX_WINDOW:
                raise ConnectionFault(
                    ErrorCode.FLOW_CONTROL_ERROR,
                    f"SETTINGS_INITIAL_WINDOW_SIZE {window} makes a window too large",
                )
            if more > 0:
                self.sender.opened_locked(stream)

    def on_settings(self) -> None:
        """The peer's settings were applied."""

    def _push_promise(self, flags: int, stream_id: int, payload: memoryview) -> None:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "got PUSH_PROMISE, which is disabled")

    def _ping(self, flags: int, stream_id: int, payload: memoryview) -> None:
        if stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"got PING on stream {stream_id}")
        if len(payload) != 8:
            raise frames.wrong_size("PING", len(payload), "8")
        if not flags & frames.ACK:
            if self._turns_at_ping == self.sender.turns:
                self._pings.count()
            self._turns_at_ping = self.sender.turns
            self.sender.control(frames.ping(bytes(payload), ack=True))
            return
        self.pinged_s = None
        on_pong, self._on_pong = self._on_pong, None
        if on_pong is not None:
            on_pong()

    def ping(self, on_pong: Callable[[], None] | None = None) -> None:
        """Ask the peer for a sign of life."""
        if on_pong is not None:
            self._on_pong = on_pong
        self.pinged_s = time.monotonic()
        self.sender.control(frames.ping(b"transpor"))

    def _goaway(self, flags: int, stream_id: int, payload: memoryview) -> None:
        if stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"got GOAWAY on stream {stream_id}")
        self.on_goaway(*frames.parse_goaway(payload))

    def on_goaway(self, last_stream_id: int, code: int, text: str) -> None:
        """The peer takes no new streams."""

    def _window_update(self, flags: int, stream_id: int, payload: memoryview) -> None:
        increment = frames.parse_increment(payload)
        if increment < limits.SMALL_INCREMENT:
            if self._explained < limits.INCREMENTS_PER_MESSAGE * self.sender.messages:
                self._explained += 1
            else:
                self._idle_frames.count()
        if not stream_id:
            self._open_connection(increment)
            return
        stream = self.streams.get(stream_id)
        if stream is None:
            if self.is_idle(stream_id):
                raise ConnectionFault(
                    ErrorCode.PROTOCOL_ERROR,
                    f"got WINDOW_UPDATE on stream {stream_id}, which is idle",
                )
            return
        if not increment:
            raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, "got WINDOW_UPDATE of 0")
        with self.lock:
            stream.send_window += increment
            if stream.send_window <= frames.MAX_WINDOW:
                if stream.entries:
                    self.sender.opened_locked(stream)
                return
        raise StreamFault(stream_id, ErrorCode.FLOW_CONTROL_ERROR, "the window overflows")

    def _open_connection(self, increment: int) -> None:
        if not increment:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "got WINDOW_UPDATE of 0")
        with self.lock:
            self.sender.window += increment
            if self.sender.window <= frames.MAX_WINDOW:
                self.sender.connection_opened_locked()
                return
        raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "the connection's window overflows")


_HANDLERS: tuple[Callable[[ControlFrames, int, int, memoryview], None], ...] = (
    lambda *_: None,  # DATA does not come this way
    ControlFrames._headers,
    ControlFrames._priority,
    ControlFrames._rst_stream,
    ControlFrames._settings,
    ControlFrames._push_promise,
    ControlFrames._ping,
    ControlFrames._goaway,
    ControlFrames._window_update,
    ControlFrames._continuation,
)
