"""HTTP/2 frames (RFC 9113): header, limits, and the payloads of all kinds but DATA.

A frame is 9 bytes of header (length, type, flags, stream) and a payload. Payloads of DATA are never
seen here: they are received into the memory of their message.
"""

import struct
from enum import IntEnum

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER_BYTES = 9

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = 0, 1, 2, 3, 4
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 5, 6, 7, 8, 9

END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY_FLAG = 0x1, 0x1, 0x4, 0x8, 0x20

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS = 1, 2, 3
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 4, 5, 6

DEFAULT_WINDOW = 65_535
MAX_WINDOW = 2**31 - 1
MAX_STREAM_ID = 2**31 - 1
SMALLEST_MAX_FRAME = 16_384
LARGEST_MAX_FRAME = 2**24 - 1

_HEADER = struct.Struct(">BHBBI")
_SETTING = struct.Struct(">HI")
_WORD = struct.Struct(">I")
_TWO_WORDS = struct.Struct(">II")
# A stream's id, and what a window may be increased by: the first bit is reserved.
_31_BITS = 0x7FFF_FFFF
Buffer = bytes | bytearray | memoryview


class ErrorCode(IntEnum):
    """Why a stream or a connection ended (RFC 9113, section 7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


class ConnectionFault(Exception):
    """The peer broke the protocol so that the connection must end, with GOAWAY `code`."""

    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class StreamFault(Exception):
    """The peer broke the protocol on one stream, which ends with RST_STREAM `code`."""

    def __init__(self, stream_id: int, code: ErrorCode, text: str) -> None:
        super().__init__(text)
        self.stream_id = stream_id
        self.code = code
        self.text = text


def header(length: int, kind: int, flags: int, stream_id: int) -> bytes:
    """Nine bytes that start a frame whose payload has `length` bytes."""
    return _HEADER.pack(length >> 16, length & 0xFFFF, kind, flags, stream_id)


def parse_header(buffer: Buffer, offset: int = 0) -> tuple[int, int, int, int]:
    """Length, type, flags and stream of the header at `offset`; the reserved bit is dropped."""
    high, low, kind, flags, stream_id = _HEADER.unpack_from(buffer, offset)
    return high << 16 | low, kind, flags, stream_id & _31_BITS


def settings(values: dict[int, int]) -> bytes:
    """A SETTINGS frame."""
    payload = b"".join(_SETTING.pack(*item) for item in values.items())
    return header(len(payload), SETTINGS, 0, 0) + payload


SETTINGS_ACK = header(0, SETTINGS, ACK, 0)


def parse_settings(payload: Buffer) -> list[tuple[int, int]]:
    """Identifiers and values; ConnectionFault for a wrong length or a value out of range."""
    if len(payload) % _SETTING.size:
        raise ConnectionFault(
            ErrorCode.FRAME_SIZE_ERROR, f"SETTINGS: got {len(payload)} bytes, expected 6 each"
        )
    values = list(_SETTING.iter_unpack(payload))
    for name, value in values:
        if name == ENABLE_PUSH and value > 1:
            raise _out_of_range("SETTINGS_ENABLE_PUSH", value, ErrorCode.PROTOCOL_ERROR)
        if name == INITIAL_WINDOW_SIZE and value > MAX_WINDOW:
            raise _out_of_range("SETTINGS_INITIAL_WINDOW_SIZE", value, ErrorCode.FLOW_CONTROL_ERROR)
        if name == MAX_FRAME_SIZE and not SMALLEST_MAX_FRAME <= value <= LARGEST_MAX_FRAME:
            raise _out_of_range("SETTINGS_MAX_FRAME_SIZE", value, ErrorCode.PROTOCOL_ERROR)
    return values


def _out_of_range(name: str, value: int, code: ErrorCode) -> ConnectionFault:
    return ConnectionFault(code, f"{name} {value} is out of range")


def ping(data: bytes, *, ack: bool = False) -> bytes:
    """A PING frame with 8 bytes of `data`."""
    return header(8, PING, ACK if ack else 0, 0) + data


def goaway(last_stream_id: int, code: ErrorCode, text: str = "") -> bytes:
    """A GOAWAY frame; streams up to `last_stream_id` are still answered."""
    debug = text.encode()
    start = header(8 + len(debug), GOAWAY, 0, 0)
    return start + _TWO_WORDS.pack(last_stream_id, code) + debug


def parse_goaway(payload: Buffer) -> tuple[int, int, str]:
    """Last stream, error code and debug text."""
    if len(payload) < _TWO_WORDS.size:
        raise wrong_size("GOAWAY", len(payload), "at least 8")
    last, code = _TWO_WORDS.unpack_from(payload)
    return last & _31_BITS, code, bytes(payload[8:]).decode(errors="replace")


def rst_stream(stream_id: int, code: ErrorCode) -> bytes:
    """A RST_STREAM frame."""
    return header(4, RST_STREAM, 0, stream_id) + _WORD.pack(code)


def window_update(stream_id: int, increment: int) -> bytes:
    """A WINDOW_UPDATE frame; stream 0 is the connection."""
    return header(4, WINDOW_UPDATE, 0, stream_id) + _WORD.pack(increment)


def parse_word(name: str, payload: Buffer) -> int:
    """The payload of RST_STREAM and WINDOW_UPDATE."""
    if len(payload) != _WORD.size:
        raise wrong_size(name, len(payload), "4")
    word: int = _WORD.unpack_from(payload)[0]
    return word


def parse_increment(payload: Buffer) -> int:
    """By how much WINDOW_UPDATE opens a window."""
    if len(payload) != _WORD.size:
        raise wrong_size("WINDOW_UPDATE", len(payload), "4")
    word: int
    (word,) = _WORD.unpack(payload)
    return word & _31_BITS


def headers(stream_id: int, block: bytes, max_frame: int, *, end_stream: bool) -> bytes:
    """HEADERS and as many CONTINUATION frames as the peer's limit asks for."""
    flags = END_STREAM if end_stream else 0
    if len(block) <= max_frame:
        return header(len(block), HEADERS, flags | END_HEADERS, stream_id) + block
    pieces = [block[at : at + max_frame] for at in range(0, len(block), max_frame)]
    framed = [header(len(pieces[0]), HEADERS, flags, stream_id) + pieces[0]]
    framed += [header(len(piece), CONTINUATION, 0, stream_id) + piece for piece in pieces[1:-1]]
    framed.append(header(len(pieces[-1]), CONTINUATION, END_HEADERS, stream_id) + pieces[-1])
    return b"".join(framed)


def header_fragment(payload: memoryview, flags: int, stream_id: int) -> bytes:
    """The part of a header block in a HEADERS frame, without padding and priority."""
    payload = without_padding(payload, flags)
    if flags & PRIORITY_FLAG:
        check_priority(payload[:5], stream_id)
        payload = payload[5:]
    return bytes(payload)


def without_padding(payload: memoryview, flags: int) -> memoryview:
    """The payload of a HEADERS frame between the length of its padding and the padding."""
    if not flags & PADDED:
        return payload
    if not payload:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "padded frame without a padding length")
    end = len(payload) - payload[0]
    if end < 1:
        raise ConnectionFault(
            ErrorCode.PROTOCOL_ERROR,
            f"got {payload[0]} bytes of padding in a payload of {len(payload)}",
        )
    return payload[1:end]


def check_priority(payload: Buffer, stream_id: int) -> None:
    """Check the fields of a priority, which is deprecated and has no effect."""
    if len(payload) != 5:
        raise StreamFault(
            stream_id,
            ErrorCode.FRAME_SIZE_ERROR,
            f"priority: got {len(payload)} bytes, expected 5",
        )
    if parse_word("priority", payload[:4]) & _31_BITS == stream_id:
        raise StreamFault(
            stream_id, ErrorCode.PROTOCOL_ERROR, f"stream {stream_id} depends on itself"
        )


def wrong_size(name: str, length: int, expected: str) -> ConnectionFault:
    """A frame whose length its type does not allow."""
    return ConnectionFault(
        ErrorCode.FRAME_SIZE_ERROR, f"{name}: got a payload of {length} bytes, expected {expected}"
    )
