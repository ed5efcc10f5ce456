"""Compressed messages: how large one is, and what is in it, a step at a time.

A message's sender decides how much it becomes, up to a thousand times of what is sent. So its size
is found out before it takes memory, its owner is asked for that much, and no more is unpacked.
"""

import zlib
from collections.abc import Callable, Iterator, Sequence

from transport import headroom
from transport.http2.frames import Buffer
from transport.status import Code, StatusError

# zlib's window bits: 16 more mean gzip's format.
_WINDOW_BITS = {"gzip": 31, "deflate": 15}
ENCODINGS = ("identity", "deflate", "gzip")
# gzip ends with the size of what it holds, modulo 2**32.
_SIZE_BYTES = 4
# What is looked at between two steps: what zlib has not used of it is copied for the next one.
_INPUT_BYTES = 16 * 1024
# Of one step: a third of a millisecond, without the interpreter's lock.
_STEP_BYTES = 256 * 1024

# Whether the message is still wanted.
Wanted = Callable[[], bool]


def pack(buffers: Sequence[Buffer], encoding: str) -> bytes:
    """The message in `buffers`, compressed."""
    packer = zlib.compressobj(wbits=_WINDOW_BITS[encoding])
    return b"".join((*map(packer.compress, buffers), packer.flush()))


def states_size(encoding: str) -> bool:
    """Whether compressed messages say how large they are, so that `size` takes no time."""
    return encoding == "gzip"


def size(packed: Buffer, encoding: str, max_bytes: int, wanted: Wanted = lambda: True) -> int:
    """Bytes of the message that was compressed; StatusError where damaged or over `max_bytes`.

    gzip's messages state it, and `unpack` finds out whether that is true. Others are unpacked for
    it, into nothing.
    """
    if states_size(encoding):
        found = int.from_bytes(memoryview(packed)[-_SIZE_BYTES:], "little")
    else:
        found = 0
        for piece in _pieces(packed, encoding, wanted):
            found += len(piece)
            if found > max_bytes:
                break
    if found > max_bytes:
        raise StatusError(
            Code.RESOURCE_EXHAUSTED,
            f"the message is larger than the limit: got {found} bytes or more unpacked, expected "
            f"at most {max_bytes}",
        )
    return found


def unpack(
    packed: Buffer, encoding: str, size_bytes: int, wanted: Wanted = lambda: True
) -> memoryview:
    """The message that was compressed, of `size_bytes`; StatusError where it is damaged.

    No more than `size_bytes` is unpacked, whatever `packed` holds.
    """
    memory = headroom.memory(size_bytes, size_bytes)
    filled = 0
    for piece in _pieces(packed, encoding, wanted):
        stop = filled + len(piece)
        if stop > size_bytes:
            raise StatusError(
                Code.RESOURCE_EXHAUSTED,
                f"the message is larger than the limit: got more than {size_bytes} bytes unpacked, "
                "which it states as its size",
            )
        memory[filled:stop] = piece
        filled = stop
    if filled < size_bytes:
        raise _damaged(f"got {filled} bytes, expected {size_bytes}")
    return memory


def start(packed: Buffer, encoding: str, most_bytes: int) -> bytes:
    """The first bytes of the message that was compressed, as far as they can be read."""
    unpacker = zlib.decompressobj(_WINDOW_BITS[encoding])
    try:
        return unpacker.decompress(memoryview(packed)[:_INPUT_BYTES], most_bytes)
    except zlib.error:
        return b""


def _pieces(packed: Buffer, encoding: str, wanted: Wanted) -> Iterator[bytes]:
    unpacker = zlib.decompressobj(_WINDOW_BITS[encoding])
    view = memoryview(packed)
    for at in range(0, len(view), _INPUT_BYTES):
        left: Buffer = view[at : at + _INPUT_BYTES]
        while left:
            if not wanted():
                raise StatusError(Code.CANCELLED, "nobody waits for the message any more")
            try:
                piece = unpacker.decompress(left, _STEP_BYTES)
            except zlib.error as error:
                raise _damaged(str(error)) from None
            left = unpacker.unconsumed_tail
            if piece:
                yield piece
        if unpacker.eof:
            if unpacker.unused_data or at + _INPUT_BYTES < len(view):
                raise _damaged("it goes on after its end")
            return
    raise _damaged("it ends too early")


def _damaged(why: str) -> StatusError:
    return StatusError(Code.INTERNAL, f"the message cannot be unpacked: {why}")
