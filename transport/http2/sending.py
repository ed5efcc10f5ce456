"""What one connection sends: control frames first, then streams in turns, within their windows.

Any thread may send. It frames and writes what it can by itself: no other thread has to wake up
first. What the socket does not take is left to the I/O thread, unless the sender may block.
Messages are never joined: the kernel gets header and buffers apart.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable

from transport.http2.frames import (
    DATA,
    DEFAULT_WINDOW,
    END_STREAM,
    SMALLEST_MAX_FRAME,
    Buffer,
    header,
)
from transport.http2.outgoing import Framed, Message, Outgoing
from transport.http2.pipes import Pipe

# One frame at most: nothing else of the connection is sent within it.
_FRAME_BYTES = 4 * 2**20
# One turn while other streams wait.
_TURN_BYTES = 256 * 1024
# Framed ahead of the socket: what control frames wait for at most, beside the frame under way.
_AHEAD_BYTES = 512 * 1024
_AHEAD_BUFFERS = 256
_PROGRESS_BYTES = 1024
# Of messages that a corked sender holds back: more is worth a write of its own.
_GATHERED_BYTES = 64 * 1024
# Writes of one flush; then the I/O thread goes on, as the caller has other work.
_WRITES = 16
# Acknowledgements and resets that the peer caused and does not read.
MAX_CONTROL_FRAMES = 2_000


class Sender:
    """The sending half of a connection; `lock` is held where a method's name ends with _locked."""

    def __init__(
        self,
        lock: threading.Lock,
        pipe: Pipe,
        watch_writable: Callable[[bool], None],
        on_broken: Callable[[OSError], None],
        on_written: Callable[[], None],
    ) -> None:
        self.lock = lock
        self.max_frame = SMALLEST_MAX_FRAME
        self.window = DEFAULT_WINDOW
        self.pending = 0  # bytes of messages of all streams that are not framed yet
        self.turns = 0  # in which a stream's frames were sent
        self.messages = 0  # that were framed to their end
        self.broken = False
        self.overflow = False
        self.blocked = False
        self.writing = False  # a thread is in the socket's send
        self.progress_s = time.monotonic()
        self._pipe = pipe
        self._watch_writable = watch_writable
        self._on_broken = on_broken
        self._on_written = on_written
        self._control: list[bytes] = []
        self._ready: deque[Outgoing] = deque()
        # Of streams that wait for the connection's window only.
        self._waiting: deque[Outgoing] = deque()
        self._buffers: list[Buffer] = []
        self._size = 0
        self._written = 0
        # Messages whose sender wants to know, and how much is written when their last byte is.
        self._awaited: deque[tuple[int, Message | Framed]] = deque()
        self._corked_by = 0
        self._pumped = False  # a thread waits for the socket instead of the I/O thread

    @property
    def empty(self) -> bool:
        """Whether everything was written that windows allow."""
        return not (self._buffers or self._control or self._ready)

    def cork(self) -> None:
        """Gather what this thread sends until `uncork`."""
        self._corked_by = threading.get_ident()

    def uncork(self) -> None:
        """Write what was gathered."""
        self._corked_by = 0
        if not self.empty:
            with self.lock:
                self.flush_locked()

    def control(self, frame: bytes) -> None:
        """Send a frame that passes all messages."""
        with self.lock:
            self.control_locked(frame)

    def add_locked(self, frame: bytes) -> None:
        """Send a control frame with what is written next."""
        self._control.append(frame)

    def control_locked(self, frame: bytes) -> None:
        """See `control`."""
        if not self.broken:
            self.queue_control_locked(frame)
            self._flush_unless_corked_locked()

    def queue_control_locked(self, frame: bytes) -> None:
        """Send a control frame that the peer caused with what is written next."""
        if not self.broken:
            self._control.append(frame)
            self.overflow = len(self._control) > MAX_CONTROL_FRAMES

    def put_locked(self, stream: Outgoing, *entries: bytes | Message | Framed) -> None:
        """Send frames of headers and messages of a stream, in this order."""
        if self.broken:
            _report_dropped(entries)
            return
        self._queue_locked(stream, *entries)
        self._flush_unless_corked_locked()

    def reserve_locked(self, stream: Outgoing, count: int) -> bool:
        """Narrow both windows by `count` bytes of DATA, for a `Framed`; False without room.

        What waits to be framed comes first: large messages must not be starved of the window.
        """
        if self.window < self.pending + count or stream.send_window < count or self.broken:
            return False
        self.window -= count
        stream.send_window -= count
        return True

    def put_pumped_locked(self, stream: Outgoing, message: Message) -> bool:
        """As `put_locked`, for a thread that may block. True: it calls `pump_on` now."""
        if self.blocked or self._pumped or self.writing or self.broken:
            self.put_locked(stream, message)
            return False
        self._pumped = True
        self._queue_locked(stream, message)
        return True

    def _queue_locked(self, stream: Outgoing, *entries: bytes | Message | Framed) -> None:
        if not stream.pending:
            # First: the I/O thread looks without the lock for streams that make no progress.
            stream.progress_s = time.monotonic()
        for entry in entries:
            if not isinstance(entry, bytes):
                stream.pending += entry.left
                self.pending += entry.left
            stream.entries.append(entry)
        if not stream.queued:
            stream.queued = True
            self._ready.append(stream)

    def drop_locked(self, stream: Outgoing) -> None:
        """Forget what a stream has not sent: it was reset, or nothing is sent any more."""
        self.pending -= stream.pending
        stream.pending = 0
        for entry in stream.entries:
            if type(entry) is Framed:
                self.window += entry.left
        _report_dropped(stream.entries)
        stream.entries.clear()

    def opened_locked(self, stream: Outgoing) -> None:
        """A stream's window was opened."""
        if stream.entries and not stream.queued and stream.send_window > 0:
            stream.queued = True
            self._ready.append(stream)
            self._flush_unless_corked_locked()

    def connection_opened_locked(self) -> None:
        """The connection's window was opened."""
        if self._waiting and self.window > 0:
            self._ready.extend(self._waiting)
            self._waiting.clear()
            self._flush_unless_corked_locked()

    def writable(self) -> None:
        """Go on: the socket takes bytes again."""
        with self.lock:
            if self._pumped:
                return
            self.blocked = False
            self.flush_locked()
            if not self.blocked:
                self._watch_writable(False)

    def _flush_unless_corked_locked(self) -> None:
        gathered = self._corked_by == threading.get_ident() and self.pending < _GATHERED_BYTES
        if not self.blocked and not gathered:
            self.flush_locked()

    def flush_locked(self, pumped: Outgoing | None = None) -> None:
        """Frame and write until nothing is left, or the socket is full.

        With `pumped` the writes wait for the socket, until nothing of this stream waits.

        The lock is let go of while the socket copies: other threads add to what is sent, and the
        one that writes takes it along.
        """
        if self.writing or self.blocked or self.broken:
            return
        self.writing = True
        try:
            if self._write_locked(pumped):
                self.blocked = True
                if not self._pumped:
                    self._watch_writable(True)
        except BaseException as error:
            # A signal's exception comes at any point: how far the writing got is not known.
            failure = error if isinstance(error, OSError) else InterruptedError("write interrupted")
            if not self.broken:
                self.break_locked()
                self._on_broken(failure)
            if not isinstance(error, OSError):
                raise
        finally:
            self.writing = False
            if self.broken:
                self._pumped = False
                self._on_written()

    def _write_locked(self, pumped: Outgoing | None) -> bool:
        """Frame and write; whether something is left that the socket does not take."""
        writes = 0
        while not self.broken:
            if not self._buffers:
                if pumped is not None and not pumped.pending:
                    # What else waits is left to the I/O thread.
                    return not self.empty
                self._fill()
                if not self._buffers:
                    return False
            if pumped is None and writes == _WRITES:
                return True
            writes += 1
            if self._write_once_locked(wait=pumped is not None):
                return True
        return False

    def _write_once_locked(self, *, wait: bool) -> bool:
        """Write once, without the lock meanwhile; whether the socket is full."""
        size = self._size
        send = self._pipe.send_waiting if wait else self._pipe.send
        # Not its end: after that this thread may wait for the interpreter.
        began_ns = time.monotonic_ns()
        try:
            self.lock.release()
            count = send(self._buffers, size)
        finally:
            self.lock.acquire()
        if count and not self.broken:
            self._advance(count, began_ns)
        return not count or (count < size and self._pipe.short_when_full and not wait)

    def pump(self, stream: Outgoing) -> bool:
        """Wait until the socket has taken what `stream` has to send; no lock is held.

        For threads that may block: they wait for the socket themselves instead of for the I/O
        thread. False where something else is in the way: a window, or another thread that pumps.
        """
        with self.lock:
            if not self.blocked or self._pumped or self.broken:
                return False
            self._pumped = True
            self._watch_writable(False)
        self.pump_on(stream)
        return True

    def pump_on(self, stream: Outgoing) -> None:
        """See `pump`, and `put_pumped_locked`."""
        while True:
            with self.lock:
                self.blocked = False
                self.flush_locked(stream)
                written = not (self._buffers or stream.pending)
                if self.broken or not self.blocked or written:
                    self._pumped = False
                    if self.blocked and not self.broken:
                        self._watch_writable(True)
                    return

    def break_locked(self) -> None:
        """Nothing can be sent any more."""
        self.broken = True
        # Not cleared: a thread may be sending them.
        self._buffers = []
        self._control.clear()
        for stream in (*self._ready, *self._waiting):
            self.drop_locked(stream)
        self._ready.clear()
        self._waiting.clear()
        _report_dropped([entry for _, entry in self._awaited])
        self._awaited.clear()

    def _advance(self, count: int, began_ns: int) -> None:
        self.progress_s = time.monotonic()
        buffers = self._buffers
        self._written += count
        self._size -= count
        if not self._size:
            buffers.clear()
        else:
            whole = 0
            while count >= (length := len(buffers[whole])):
                count -= length
                whole += 1
            del buffers[:whole]
            if count:
                buffers[0] = memoryview(buffers[0])[count:]
        awaited = self._awaited
        while awaited and awaited[0][0] <= self._written:
            on_sent = awaited.popleft()[1].on_sent
            assert on_sent is not None
            on_sent(began_ns)

    def _fill(self) -> None:
        buffers, ready = self._buffers, self._ready
        if self._control:
            buffers += self._control
            self._size += sum(map(len, self._control))
            self._control.clear()
        while ready and self._size < _AHEAD_BYTES and len(buffers) < _AHEAD_BUFFERS:
            stream = ready[0]
            most = _FRAME_BYTES if len(ready) == 1 else _TURN_BYTES
            more = self._take_turn(stream, most)
            ready.popleft()
            if not more:
                stream.queued = False
            elif self.window > 0:
                ready.append(stream)
            else:
                self._waiting.append(stream)

    def _take_turn(self, stream: Outgoing, most: int) -> bool:
        """Frame some of a stream; whether it could go on if the connection's window allows."""
        entries, buffers = stream.entries, self._buffers
        framed = 0
        self.turns += 1
        while entries:
            entry = entries[0]
            if type(entry) is bytes:
                buffers.append(entry)
                self._size += len(entry)
                entries.popleft()
                # A frame of headers or an empty one of DATA.
                if entry[4] & END_STREAM:
                    stream.end()
                continue
            if type(entry) is Framed:
                self._take_framed(stream, entry)
                break
            assert type(entry) is Message
            count = min(entry.left, most, stream.send_window, self.window, self.max_frame)
            if count <= 0:
                break
            most -= count
            ends = count == entry.left
            last = ends and entry.end_stream
            buffers.append(header(count, DATA, END_STREAM if last else 0, stream.stream_id))
            entry.take(count, buffers)
            self._size += count + 9
            stream.send_window -= count
            self.window -= count
            stream.pending -= count
            self.pending -= count
            framed += count
            if ends:
                self.messages += 1
                entries.popleft()
                if entry.on_sent is not None:
                    self._awaited.append((self._written + self._size, entry))
            if last:
                stream.end()
        if framed:
            # A peer that opens its window byte by byte makes no progress.
            if framed >= _PROGRESS_BYTES or not entries:
                stream.progress_s = time.monotonic()
            stream.on_framed()
        return bool(entries) and stream.send_window > 0

    def _take_framed(self, stream: Outgoing, entry: Framed) -> None:
        self._buffers.append(entry.frames)
        self._size += len(entry.frames)
        stream.pending -= entry.left
        self.pending -= entry.left
        stream.entries.popleft()
        self.messages += 1
        if entry.on_sent is not None:
            self._awaited.append((self._written + self._size, entry))
        stream.end()


def _report_dropped(entries: Iterable[bytes | Message | Framed]) -> None:
    for entry in entries:
        if not isinstance(entry, bytes) and entry.on_dropped is not None:
            entry.on_dropped()
