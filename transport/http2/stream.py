"""One HTTP/2 stream, either side: the state that a call and its connection share."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from transport.http2.frames import ErrorCode
from transport.http2.outgoing import Outgoing
from transport.messages import NEVER, OVER, PREFIX_BYTES, MessageReader
from transport.reporting import report
from transport.status import Code, Status, StatusError

if TYPE_CHECKING:
    from transport.http2.connection import Connection

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

    def arriving(self, message: memoryview, filled: int) -> int:
        """See MessageReader's Owner; the I/O thread calls."""
        return NEVER

    def deliver(self, message: memoryview) -> None:
        """Take a message; the I/O thread calls."""
        raise NotImplementedError

    def skipped(self, length: int, head: bytes) -> None:
        """A message was dropped, as `admit` had it; the I/O thread calls."""

    def deliver_packed(self, packed: memoryview) -> None:
        """Take a compressed message; `take_unpacked` follows."""
        self.connection.unpack(self, packed)

    def take_unpacked(self, message: memoryview) -> None:
        """Go on with a message that was unpacked; the I/O thread calls."""
        if not self.closed:
            self.guarded(self.reader.unpacked, message)
            self.connection.open_window(self)

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
        self.connection.open_window(self)

    def guarded(self, call: Callable[..., None], *args: object) -> None:
        """Call the reader; a StatusError of it ends the call."""
        try:
            call(*args)
        except StatusError as error:
            self.failed(error.status)
        except MemoryError:
            self.failed(Status(Code.RESOURCE_EXHAUSTED, "out of memory"))
        except Exception:
            report(self.connection.log, "stream %d failed", self.stream_id)
            self.failed(Status(Code.INTERNAL, "the call failed in the transport"))

    def reset(self, code: ErrorCode) -> None:
        """End the stream at once, in both directions; any thread."""
        self.connection.reset(self, code)
