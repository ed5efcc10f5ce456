"""The frames of an answer: its headers and trailers, and a small one as a whole."""

import struct

from transport import call
from transport.http2 import frames, headers
from transport.http2.frames import Buffer
from transport.messages import PREFIX_BYTES
from transport.status import OK, Metadata, Status

_START = [(":status", "200"), ("content-type", call.CONTENT_TYPE)]
_ACCEPT = [("grpc-accept-encoding", call.ACCEPT_ENCODING)]
_START_BLOCK = headers.encode(_START + _ACCEPT)
_OK_BLOCK = headers.encode(call.encode_status(OK))
# Of a small answer: HEADERS, the header of DATA and the message's prefix; behind it HEADERS again.
_BEFORE = struct.Struct(f">BHBBI {len(_START_BLOCK)}s BHBBI BI")
_AFTER = struct.Struct(f">BHBBI {len(_OK_BLOCK)}s")
_LAST = frames.END_HEADERS | frames.END_STREAM


def refusal(stream_id: int, status: Status, max_frame: int) -> bytes:
    """The frame that answers a call with `status` alone."""
    block = headers.encode(_START + _ACCEPT + call.encode_status(status))
    return frames.headers(stream_id, block, max_frame, end_stream=True)


def start(stream_id: int, encoding: str, metadata: Metadata, max_frame: int) -> bytes:
    """The frame before the first message, with initial metadata."""
    block = _START_BLOCK
    if encoding != "identity":
        block += headers.encode([("grpc-encoding", encoding)])
    if metadata:
        block += headers.encode(call.encode_metadata(metadata))
    return frames.headers(stream_id, block, max_frame, end_stream=False)


def trailers(stream_id: int, status: Status, max_frame: int) -> bytes:
    """The frame after the last message."""
    block = _OK_BLOCK if status is OK else headers.encode(call.encode_status(status))
    return frames.headers(stream_id, block, max_frame, end_stream=True)


def whole(stream_id: int, data: Buffer) -> bytes:
    """All frames of an answer of one message with the status OK, if it fits one frame."""
    length = len(data)
    count = PREFIX_BYTES + length
    before = _BEFORE.pack(
        *(0, len(_START_BLOCK), frames.HEADERS, frames.END_HEADERS, stream_id, _START_BLOCK),
        *(0, count, frames.DATA, 0, stream_id, 0, length),
    )
    after = _AFTER.pack(0, len(_OK_BLOCK), frames.HEADERS, _LAST, stream_id, _OK_BLOCK)
    return b"".join((before, data, after))
