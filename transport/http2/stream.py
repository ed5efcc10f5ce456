"""One HTTP/2 stream, either side: the state that a call and its connection share."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from transport import compression
from transport.http2 import frames
from transport.http2.frames import ErrorCode
from transport.http2.outgoing import Outgoing
from transport.messages import NEVER, OVER, PREFIX_BYTES, MessageReader
from transport.reporting import report
from transport.status import Code, Status, StatusError

if TYPE_CHECKING:
    from transport.http2.connection import Connection

Found = TypeVar("Found")

_NO_MEMORY = Status(Code.RESOURCE_EXHAUSTED, "out of memory")
# Of a message for which there is no room.
_PEEK_BYTES = 16 * 1024


class Stream(Outgoing):
    """Messages come in at `deliver`; what goes out is put on the connection's sender."""

    __slots__ = (
        "closed",
        "connection",
        "reader",
        "recv_window",
        "remote_ended",
        "since_s",
        "window",
    )

    def __init__(
        self,
        connection: "Connection",
        stream_id: int,
        send_window: int,
        recv_window: int,
        max_bytes: int,
    ) -> None:
        super().__init__(stream_id, send_window)
        self.connection = connection
        self.recv_window = recv_window
        self.window = recv_window  # what the peer may send ahead of an admitted message
        self.reader = MessageReader(self, max_bytes)
        self.remote_ended = False
        # Nothing that comes from the peer counts any more.
        self.closed = False
        self.since_s = 0.0  # when the peer was last waited for, time.monotonic

    def admit(self, length: int) -> bool:
        """Whether a message of `length` bytes may come now."""
        return True

    def room_bytes(self) -> int | None:
        """Bytes that `admit` takes now, beside what it has taken; None: as many as come."""
        return None

    def window_ahead(self) -> int:
        """What the peer may send ahead of an admitted message.

        Bytes of a message that has no room yet are copied twice. So only messages that fit are
        asked for, and the start of one more, which says how long it is.
        """
        room = self.room_bytes()
        if room is None:
            return self.window
        size = self.reader.last_length + PREFIX_BYTES
        return min(self.window, room // size * size + _PEEK_BYTES)

    def open_window(self) -> None:
        """Let the peer send what is missing of its message, and a window more; the I/O thread."""
        reader = self.reader
        if reader.waiting or self.remote_ended or self.closed:
            return
        connection = self.connection
        window = self.window_ahead()
        missing = max(0, reader.missing - connection.receiver.left_of(self))
        more = min(missing + window, frames.MAX_WINDOW) - self.recv_window
        if more >= window // 2:
            self.recv_window += more
            connection.sender.control(frames.window_update(self.stream_id, more))

    def arriving(self, message: memoryview, filled: int) -> int:
        """See MessageReader's Owner; the I/O thread calls."""
        return NEVER

    def deliver(self, message: memoryview) -> None:
        """Take a message; the I/O thread calls."""
        raise NotImplementedError

    def skipped(self, length: int, head: bytes) -> None:
        """A message was dropped, as `admit` had it; the I/O thread calls."""

    def measure(self, packed: memoryview) -> None:
        """See MessageReader's Owner; gzip's messages say it at once."""
        reader = self.reader
        encoding, most = reader.encoding, reader.max_bytes
        if compression.states_size(encoding):
            reader.measured(compression.size(packed, encoding, most))
            return
        self._in_steps(partial(compression.size, packed, encoding, most), self._take_size)

    def unpack(self, packed: memoryview, size_bytes: int) -> None:
        """See MessageReader's Owner."""
        unpack = partial(compression.unpack, packed, self.reader.encoding, size_bytes)
        self._in_steps(unpack, self._take_unpacked)

    def _in_steps(
        self, work: Callable[[compression.Wanted], Found], take: Callable[[Found], None]
    ) -> None:
        """Let another thread work as long as the message is wanted; `take` what it finds here."""
        loop = self.connection.loop

        def run() -> None:
            try:
                found = work(lambda: not self.unwanted)
            except (StatusError, MemoryError) as error:
                status = error.status if isinstance(error, StatusError) else _NO_MEMORY
                loop.call_soon(lambda: self.failed(status))
                return
            loop.call_soon(lambda: take(found))

        self.connection.run_blocking(run)

    @property
    def unwanted(self) -> bool:
        """Whether nobody waits for the message that is under way."""
        return self.closed

    def _take_size(self, size_bytes: int) -> None:
        if not self.closed:
            self.guarded(self.reader.measured, size_bytes)
            self.open_window()

    def _take_unpacked(self, message: memoryview) -> None:
        if not self.closed:
            self.guarded(self.reader.unpacked, message)
            self.open_window()

    def stash(self, count: int) -> bool:
        """See MessageReader's Owner; the window bounds it."""
        return True

    def unstash(self, count: int) -> None:
        """See MessageReader's Owner."""

    def count_data(self, length: int) -> None:
        """A DATA frame arrived with `length` bytes, padding not counted."""

    def ended(self) -> None:
        """The peer sends no more messages; the I/O thread calls."""

    def failed(self, status: Status) -> None:
        """A message cannot be read; the I/O thread calls."""

    def on_reset(self, code: int) -> None:
        """The peer reset the stream; the I/O thread calls."""

    def on_lost(self, text: str) -> None:
        """The connection was lost; the I/O thread calls."""

    def on_local_end(self) -> None:
        """See Outgoing."""
        self.connection.local_end_locked(self)

    def drop_idle_reader(self) -> None:
        """Let go of the reader, which holds its stream, where no message is under way."""
        if self.reader.idle:
            self.reader = OVER

    def resume(self) -> None:
        """Let the message come that `admit` did not take; any thread."""
        self.connection.loop.call_soon(self._resume)

    def _resume(self) -> None:
        if self.closed or not self.reader.waiting:
            return
        self.guarded(self.reader.resume)
        self.open_window()

    def guarded(self, call: Callable[..., None], *args: object) -> None:
        """Call the reader; a StatusError of it ends the call."""
        try:
            call(*args)
        except StatusError as error:
            self.failed(error.status)
        except MemoryError:
            self.failed(_NO_MEMORY)
        except Exception:
            report(self.connection.log, "stream %d failed", self.stream_id)
            self.failed(Status(Code.INTERNAL, "the call failed in the transport"))

    def reset(self, code: ErrorCode) -> None:
        """End the stream at once, in both directions; any thread."""
        self.connection.reset(self, code)
