"""What one connection receives: frames in order, the payload of DATA into its message's memory.

Headers and small frames are read into memory that all connections of a loop share. While a large
message comes, one call reads the socket into the message itself, and what follows it into the
shared memory.
"""

from typing import Protocol

from transport.http2.frames import (
    CONTINUATION,
    DATA,
    END_STREAM,
    HEADER_BYTES,
    HEADERS,
    PADDED,
    SETTINGS,
    ConnectionFault,
    ErrorCode,
    StreamFault,
    parse_header,
)
from transport.http2.limits import MAX_CONTROL_PAYLOAD
from transport.http2.pipes import Pipe
from transport.messages import MessageReader

# Of one call into the socket for headers; it is also what is copied of a large message.
_READ_BYTES = 32 * 1024
# Behind a message's memory: room for the next frame's header and the start of its message.
_AFTER_BYTES = 1024
SCRATCH_BYTES = MAX_CONTROL_PAYLOAD + HEADER_BYTES + _READ_BYTES
# Of one connection in one turn; the others wait meanwhile.
_TURN_BYTES = 4 * 2**20
_TURN_READS = 64


class Incoming(Protocol):
    """The receiving half of a stream."""

    reader: MessageReader
    closed: bool


class FrameHandler(Protocol):
    """What the frames are for."""

    def on_frame(self, kind: int, flags: int, stream_id: int, payload: memoryview) -> None:
        """A frame that is not DATA."""

    def on_endless_headers(self, stream_id: int) -> None:
        """A header block that is so large that the connection ends."""

    def on_unknown_frame(self) -> None:
        """A frame of a type that HTTP/2 does not have."""

    def on_data(self, stream_id: int, length: int, *, end_stream: bool) -> Incoming | None:
        """The header of a DATA frame; None: its payload is dropped."""

    def on_payload(self, stream: Incoming, data: memoryview) -> None:
        """Payload that lies in shared memory, valid during this call."""

    def on_filled(self, stream: Incoming, count: int) -> None:
        """Payload that was received into the message's memory."""

    def on_data_end(self, stream: Incoming) -> None:
        """A DATA frame that ends its stream is complete."""

    def on_stream_fault(self, fault: StreamFault) -> None:
        """The peer broke the protocol on one stream."""


class Receiver:
    """Cuts what a pipe gives into frames. The I/O thread calls it."""

    def __init__(self, handler: FrameHandler, scratch: memoryview, max_frame: int) -> None:
        self._handler = handler
        self._view = scratch
        self._max_frame = max_frame
        self._rest = b""  # what was read of a frame that is not complete, between turns
        self._start = self._end = 0
        self._in_data = False
        self._stream: Incoming | None = None
        self._left = 0  # of the payload of the DATA frame under way
        self._skip = 0  # padding, or a payload that nobody wants
        self._ends_stream = False
        self._continued = False
        self._drained = False
        self.bytes_received = 0

    def expect_continuation(self, expected: bool) -> None:
        """Whether the next frame has to be CONTINUATION."""
        self._continued = expected

    def left_of(self, stream: Incoming) -> int:
        """Bytes to come of the frame under way, where it is one of `stream`."""
        return self._left if self._stream is stream else 0

    def read(self, pipe: Pipe) -> bool:
        """Read what is there, up to a turn's share. False: the peer has closed.

        ConnectionFault where the peer broke the protocol, OSError where the connection is lost.
        """
        view = self._view
        self._start, self._end = 0, len(self._rest)
        view[: self._end] = self._rest
        before = self.bytes_received
        try:
            for _ in range(_TURN_READS):
                stream = self._stream
                target = stream.reader.target(self._left) if self._left and stream else None
                if target is None:
                    wanted = self._end + _READ_BYTES
                    count = pipe.receive(view[self._end : wanted])
                    if not count:
                        return count is None
                    self._end += count
                    self.bytes_received += count
                    self._parse()
                    if self._end + _READ_BYTES > len(view):
                        self._compact()
                    if count < _READ_BYTES and not pipe.pending:
                        return True
                elif not self._receive_into(pipe, target):
                    return False
                elif self._drained:
                    return True
                if self.bytes_received - before > _TURN_BYTES:
                    return True
            return True
        finally:
            self._rest = bytes(view[self._start : self._end])

    def _receive_into(self, pipe: Pipe, target: memoryview) -> bool:
        """Receive into a message; False at the end of the connection."""
        stream = self._stream
        assert stream is not None
        self._drained = True
        count = pipe.receive_two(target, self._view[:_AFTER_BYTES])
        if not count:
            return count is None
        self.bytes_received += count
        wanted = len(target)
        self._drained = count < wanted and not pipe.pending
        self._start = 0
        self._end = max(0, count - wanted)
        count -= self._end
        self._left -= count
        self._handler.on_filled(stream, count)
        if stream.closed:
            self._stream = None
        if self._end or not self._left:
            self._parse()
        return True

    def _compact(self) -> None:
        start, end = self._start, self._end
        self._view[: end - start] = bytes(self._view[start:end])
        self._start, self._end = 0, end - start

    def _parse(self) -> None:
        while True:
            available = self._end - self._start
            if self._in_data:
                if self._left and not self._payload(available):
                    break
                if self._skip and not self._drop():
                    break
                if self._left == 0 and self._skip == 0:
                    self._finish_data()
                continue
            if available < HEADER_BYTES or not self._begin_frame(available):
                break
        if self._start == self._end:
            self._start = self._end = 0

    def _begin_frame(self, available: int) -> bool:
        """Read a frame up to the payload of DATA; False when more of it has to come."""
        view, handler = self._view, self._handler
        length, kind, flags, stream_id = parse_header(view, self._start)
        if length > self._max_frame:
            raise ConnectionFault(
                ErrorCode.FRAME_SIZE_ERROR,
                f"got a frame of {length} bytes, expected at most {self._max_frame}",
            )
        if self._continued and kind != CONTINUATION:
            raise ConnectionFault(
                ErrorCode.PROTOCOL_ERROR, f"got a frame of type {kind} within a header block"
            )
        if kind == DATA:
            return self._begin_data(length, flags, stream_id, available)
        if kind > CONTINUATION:
            handler.on_unknown_frame()
            self._start += HEADER_BYTES
            self._in_data, self._stream, self._left, self._skip = True, None, 0, length
            self._ends_stream = False
            return True
        if length > MAX_CONTROL_PAYLOAD:
            if kind in (HEADERS, CONTINUATION):
                handler.on_endless_headers(stream_id)
            code = ErrorCode.FRAME_SIZE_ERROR if kind == SETTINGS else ErrorCode.ENHANCE_YOUR_CALM
            raise ConnectionFault(code, f"got a frame of type {kind} and {length} bytes")
        if available < HEADER_BYTES + length:
            return False
        at = self._start + HEADER_BYTES
        self._start = at + length
        try:
            handler.on_frame(kind, flags, stream_id, view[at : at + length])
        except StreamFault as fault:
            handler.on_stream_fault(fault)
        return True

    def _begin_data(self, length: int, flags: int, stream_id: int, available: int) -> bool:
        """Read the header of a DATA frame; False while its padding's length is missing."""
        used, padding = HEADER_BYTES, 0
        if flags & PADDED:
            if not length:
                raise ConnectionFault(
                    ErrorCode.FRAME_SIZE_ERROR, "padded DATA without a padding length"
                )
            if available <= HEADER_BYTES:
                return False
            padding = self._view[self._start + HEADER_BYTES]
            used += 1
            if padding >= length:
                raise ConnectionFault(
                    ErrorCode.PROTOCOL_ERROR,
                    f"got {padding} bytes of padding in a payload of {length}",
                )
        self._start += used
        self._in_data = True
        self._ends_stream = bool(flags & END_STREAM)
        self._left = length - padding - (used - HEADER_BYTES)
        self._skip = padding
        self._stream = None
        try:
            stream = self._handler.on_data(stream_id, length, end_stream=self._ends_stream)
        except StreamFault as fault:
            self._handler.on_stream_fault(fault)
            stream = None
        if stream is None:
            self._skip, self._left = self._skip + self._left, 0
        self._stream = stream
        return True

    def _payload(self, available: int) -> bool:
        """Hand on the payload that is there; False when more has to come."""
        if not available:
            return False
        take = min(available, self._left)
        at = self._start
        self._start = at + take
        self._left -= take
        stream = self._stream
        if stream is not None:
            self._handler.on_payload(stream, self._view[at : at + take])
            if stream.closed:
                self._stream = None
        return self._left == 0

    def _drop(self) -> bool:
        take = min(self._end - self._start, self._skip)
        self._start += take
        self._skip -= take
        return self._skip == 0

    def _finish_data(self) -> None:
        self._in_data = False
        stream, self._stream = self._stream, None
        if stream is not None and self._ends_stream and not stream.closed:
            try:
                self._handler.on_data_end(stream)
            except StreamFault as fault:
                self._handler.on_stream_fault(fault)
