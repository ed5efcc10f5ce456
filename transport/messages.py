"""gRPC's messages within a stream's DATA: a prefix of 5 bytes, then the message.

The prefix says how long the message is before any of it arrives. Then its owner is asked whether it
may come (`admit`), its memory is made, and from there on the socket is read straight into it. What
arrives of a message that is not admitted is bounded by the stream's window. A message that its
owner skips takes no memory: it is dropped as it comes, and the next one follows.
"""

import struct
import time
from collections.abc import Iterable
from typing import Protocol, cast

from transport import compression, headroom
from transport.http2.frames import Buffer
from transport.status import Code, StatusError

PREFIX_BYTES = 5
_PREFIX = struct.Struct(">BI")
MAX_MESSAGE_BYTES = 2**32 - 1
# Below that, receiving into the memory itself costs more than a copy.
_DIRECT_BYTES = 4096
# The memory of a message is so much too large at most: a sixteenth of it, from a MiB on.
_STEP_BYTES = 64 * 1024
_SMALL_STEP_BYTES = 4096
_LARGE_BYTES = 16 * _STEP_BYTES
# A message of at least so many bytes has its owner look at it while it arrives, first when so many
# bytes of it are there.
ARRIVING_LEAST_BYTES = 16 * 2**20
ARRIVING_FIRST_BYTES = 2**20
# Of a message that nobody looks at: more than any has.
NEVER = MAX_MESSAGE_BYTES + 1
# Of a message that is skipped: how much of its start its owner gets.
SKIPPED_HEAD_BYTES = 4096


class SkipMessage(Exception):
    """Raised by `admit`: drop the message as it comes, and go on with the next one."""


def prefix(length: int, *, packed: bool = False) -> bytes:
    """The bytes before a message."""
    return _PREFIX.pack(packed, length)


def as_bytes(buffers: Iterable[Buffer]) -> list[memoryview]:
    """Views of the buffers as bytes, without empty ones."""
    views = [memoryview(buffer) for buffer in buffers]
    return [view.cast("B") for view in views if view.nbytes]


class Owner(Protocol):
    """The stream whose messages are read."""

    def admit(self, length: int) -> bool:
        """Whether a message may come now; if not, `MessageReader.resume` is called later.

        SkipMessage: it is dropped, and `skipped` called in its place.
        """

    def arriving(self, message: memoryview, filled: int) -> int:
        """Look at a large message of which `filled` bytes are there; the others are undefined.

        Returns how many must be there for the next look, NEVER for none. Compressed messages are
        not shown.
        """

    def deliver(self, message: memoryview) -> None:
        """Take a message."""

    def skipped(self, length: int, head: bytes) -> None:
        """A message of `length` bytes was dropped; `head` is its start, empty if still packed."""

    def measure(self, packed: memoryview) -> None:
        """Find out how large a message is unpacked; `MessageReader.measured` is called later."""

    def unpack(self, packed: memoryview, size_bytes: int) -> None:
        """Unpack a message of a known size; `MessageReader.unpacked` is called later."""

    def stash(self, count: int) -> bool:
        """Whether `count` bytes are kept that come before their message may; StatusError."""

    def unstash(self, count: int) -> None:
        """So many of these bytes are not kept any more."""

    def ended(self) -> None:
        """The peer sends no more."""


class MessageReader:
    """Makes messages of the payload of one stream's DATA; one thread calls it."""

    __slots__ = (
        "_ended",
        "_filled",
        "_head",
        "_look_at",
        "_memory",
        "_packed",
        "_size",
        "_skipped",
        "_stash",
        "_waiting",
        "began_ns",
        "encoding",
        "first_ns",
        "last_length",
        "length",
        "max_bytes",
        "owner",
    )

    def __init__(self, owner: Owner, max_bytes: int) -> None:
        self.owner = owner
        self.max_bytes = max_bytes
        self.encoding = "identity"
        self.length = -1  # of the message that is under way
        self.last_length = 0  # of the message under way or before
        self.first_ns = 0  # time.monotonic_ns when its first byte was seen
        self.began_ns = 0  # the same, or when it was admitted, if it had to wait for that
        self._head = b""
        self._packed = False
        self._size = -1  # of a compressed message, unpacked, once that is known
        self._memory: memoryview | None = None
        self._filled = 0
        self._look_at = NEVER  # bytes that are there when the owner looks next
        self._waiting = False
        self._skipped: bytearray | None = None  # the start of a message that is dropped
        self._stash: bytearray | None = None
        self._ended = False

    @property
    def missing(self) -> int:
        """Bytes to come of the message that is under way, once it is admitted."""
        return 0 if self._memory is None else self.length - self._filled

    @property
    def taken_bytes(self) -> int:
        """Memory of the message that is under way, unpacked if its size is known."""
        return max(self.length, self._size)

    @property
    def idle(self) -> bool:
        """Whether no message is under way."""
        return self.length < 0 and not self._head

    @property
    def waiting(self) -> bool:
        """Whether the owner does not take the message that is under way."""
        return self._waiting

    def target(self, most: int) -> memoryview | None:
        """Memory to receive up to `most` bytes into, where that is worth it; then `filled`."""
        memory = self._memory
        if memory is None or self._waiting:
            return None
        at = self._filled
        end = min(self.length, at + most)
        return memory[at:end] if end - at >= _DIRECT_BYTES else None

    def filled(self, count: int) -> None:
        """So many bytes are in the memory that `target` gave."""
        self._filled += count
        if self._filled == self.length:
            self._finish()
        elif self._filled >= self._look_at:
            assert self._memory is not None
            self._look_at = self.owner.arriving(self._memory, self._filled)

    def feed(self, data: memoryview) -> None:
        """Take bytes that lie elsewhere. StatusError: the call must end."""
        while data:
            if self._waiting:
                if self.owner.stash(len(data)):
                    if self._stash is None:
                        self._stash = bytearray()
                    self._stash += data
                return
            if self.length < 0:
                data = self._read_prefix(data)
                if self.length == 0 and not self._waiting:
                    # Not `resume`: what follows in `data` comes before the end.
                    self._go_on()
                continue
            if self._skipped is not None:
                data = self._skip(data, self._skipped)
                continue
            if self._memory is None:
                data = self._begin(data)
                continue
            count = min(len(data), self.length - self._filled)
            self._memory[self._filled : self._filled + count] = data[:count]
            data = data[count:]
            self.filled(count)

    def end(self) -> None:
        """No more data comes."""
        self._ended = True
        if not self._waiting:
            self._check_end()

    def resume(self) -> None:
        """Go on with a message that `admit` did not take at first."""
        self._waiting = False
        # The time that it waited is not the sender's.
        self.began_ns = time.monotonic_ns()
        self._go_on()
        self._feed_stash()

    def _go_on(self) -> None:
        memory = self._memory
        if self._skipped is not None and self._size >= 0:
            assert memory is not None
            size, head = self._size, compression.start(memory, self.encoding, SKIPPED_HEAD_BYTES)
            self._reset()
            self.owner.skipped(size, head)
        elif self._skipped is not None:
            self._skip(memoryview(b"") if memory is None else memory, self._skipped)
        elif memory is not None:
            self._finish()
        elif self.length >= 0:
            self._begin(memoryview(b""))

    def ask_again(self) -> None:
        """Ask the owner again whether the message may come that waits."""
        self._ask()
        if not self._waiting:
            self.resume()

    def measured(self, size_bytes: int) -> None:
        """Go on after `measure`: ask for what the message takes unpacked."""
        self._size = size_bytes
        self.ask_again()

    def unpacked(self, message: memoryview) -> None:
        """Go on after `unpack`."""
        self._reset()
        self._waiting = False
        self.owner.deliver(message)
        self._feed_stash()

    def drop(self) -> None:
        """Let go of what came before its message might: nobody gets it."""
        stash, self._stash = self._stash, None
        if stash:
            self.owner.unstash(len(stash))

    def _ask(self) -> None:
        try:
            self._waiting = not self.owner.admit(self.length if self._size < 0 else self._size)
        except SkipMessage:
            self._waiting, self._skipped = False, bytearray()
            self._filled = 0

    def _feed_stash(self) -> None:
        if self._waiting:
            return
        stash, self._stash = self._stash, None
        if stash:
            self.owner.unstash(len(stash))
            self.feed(memoryview(stash))
        if self._ended and not self._waiting:
            self._check_end()

    def _check_end(self) -> None:
        if self.length >= 0 or self._head:
            raise StatusError(Code.INTERNAL, "the stream ended within a message")
        self.owner.ended()

    def _read_prefix(self, data: memoryview) -> memoryview:
        missing = PREFIX_BYTES - len(self._head)
        if not self._head:
            self.first_ns = self.began_ns = time.monotonic_ns()
        if not self._head and len(data) >= PREFIX_BYTES:
            flag, length = _PREFIX.unpack_from(data)
        else:
            self._head += data[:missing]
            if len(self._head) < PREFIX_BYTES:
                return data[missing:]
            flag, length = _PREFIX.unpack(self._head)
            self._head = b""
        if flag > 1:
            raise StatusError(Code.INTERNAL, f"a message's prefix starts with {flag}: not gRPC")
        if flag and self.encoding == "identity":
            raise StatusError(
                Code.INTERNAL, "a message is marked as compressed, but grpc-encoding is missing"
            )
        if length > self.max_bytes:
            raise StatusError(
                Code.RESOURCE_EXHAUSTED,
                f"the message is larger than the limit: got {length} bytes, expected at most "
                f"{self.max_bytes}",
            )
        self.length, self._packed = length, bool(flag)
        self.last_length = length
        self._ask()
        return data[missing:]

    def _begin(self, data: memoryview) -> memoryview:
        """Start a message that is admitted; the bytes of `data` that are left."""
        length = self.length
        if len(data) >= length:
            message = memoryview(bytes(data[:length]))
            if not self._packed:
                self.length = -1
                self.owner.deliver(message)
                return data[length:]
            self._memory = message
            self._filled = length
            self._finish()
            return data[length:]
        # Not cleared, as a bytearray would be; in steps, so that the place of a message fits the
        # next one that is a few bytes longer.
        step = _STEP_BYTES if length >= _LARGE_BYTES else _SMALL_STEP_BYTES
        self._memory = headroom.memory(length, -(-length // step) * step)
        self._filled = 0
        shown = length >= ARRIVING_LEAST_BYTES and not self._packed
        self._look_at = ARRIVING_FIRST_BYTES if shown else NEVER
        return data

    def _skip(self, data: memoryview, head: bytearray) -> memoryview:
        """Drop what `data` has of the message; the bytes of `data` that are left."""
        count = min(len(data), self.length - self._filled)
        head += data[: min(count, SKIPPED_HEAD_BYTES - len(head))]
        self._filled += count
        if self._filled == self.length:
            length, packed = self.length, self._packed
            self._reset()
            self.owner.skipped(length, b"" if packed else bytes(head))
        return data[count:]

    def _finish(self) -> None:
        message, packed = self._memory, self._packed
        assert message is not None
        if packed:
            self._waiting = True
            if self._size < 0:
                self.owner.measure(message)
            else:
                self.owner.unpack(message, self._size)
            return
        self._reset()
        self.owner.deliver(message)

    def _reset(self) -> None:
        self.length = -1
        self._memory = self._skipped = None
        self._filled = 0
        self._packed = False
        self._size = -1


class NoMessages(MessageReader):
    """Drops the body of a request that is not gRPC's."""

    def feed(self, data: memoryview) -> None:
        """See MessageReader."""

    def end(self) -> None:
        """See MessageReader."""
        self.owner.ended()


class _Over(NoMessages):
    """Of a stream that is over: nothing comes any more, and what is late is dropped."""

    def end(self) -> None:
        """See MessageReader."""

    def resume(self) -> None:
        """See MessageReader."""

    def ask_again(self) -> None:
        """See MessageReader."""

    def measured(self, size_bytes: int) -> None:
        """See MessageReader."""

    def unpacked(self, message: memoryview) -> None:
        """See MessageReader."""

    def drop(self) -> None:
        """See MessageReader."""


# One for all streams: a reader and its owner would keep each other until the collector comes by.
OVER: MessageReader = _Over(cast(Owner, None), 0)
