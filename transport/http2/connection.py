"""One HTTP/2 connection, either side: settings, windows, pings, GOAWAY, the states of streams.

The I/O thread reads; any thread writes, under the connection's lock. What is sent is in `sending`,
how bytes become frames in `receiving`; this module says what the frames mean.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Callable

from transport.http2 import frames
from transport.http2.control import ControlFrames
from transport.http2.frames import ConnectionFault, ErrorCode, StreamFault
from transport.http2.pipes import Pipe
from transport.http2.receiving import Incoming, Receiver
from transport.http2.sending import Sender
from transport.http2.stream import Stream
from transport.loop import READ, WRITE, Loop
from transport.options import ConnectionOptions
from transport.reporting import report

# Wide open: streams' windows bound what a peer may send ahead. Unadmitted messages could fill it.
_CONNECTION_WINDOW = 2**30
_MESSAGES_AHEAD = 16
# What a closing connection waits for the peer's end, so that GOAWAY is not lost to a TCP reset.
_LINGER_S = 1.0
_DISCARD_BYTES = 256 * 1024
_TICK_S = 1.0


class Connection(ControlFrames):
    """See the module; `ServerConnection` and `ClientConnection` complete it."""

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        pipe: Pipe,
        options: ConnectionOptions,
        scratch: memoryview,
    ) -> None:
        super().__init__()
        self.loop = loop
        self.options = options
        self.lock = threading.Lock()
        self.pipe = pipe
        self.sock = sock
        self.streams: dict[int, Stream] = {}
        self.sender = Sender(
            self.lock, self.pipe, self._watch_writable, self._broken, self._written
        )
        self.receiver = Receiver(self, scratch, options.max_frame)
        self.closing = False  # GOAWAY with an error was sent, or everything is done
        self.lost = False
        self.cause: Exception | None = None  # why it ended, where that was an error
        self._shut = False  # nothing more is sent
        self.last_peer_stream = 0
        self._recv_window = frames.DEFAULT_WINDOW
        self._widened = 0  # of all streams' windows beyond `stream_window`
        self._received_s = time.monotonic()
        self._received_bytes = 0
        self._write_wanted = False

    # --- life

    def start(self, opening: bytes) -> None:
        """Send `opening` and SETTINGS, and read from now on; the I/O thread calls."""
        options = self.options
        settings = {
            frames.MAX_FRAME_SIZE: options.max_frame,
            frames.INITIAL_WINDOW_SIZE: options.stream_window,
            frames.MAX_HEADER_LIST_SIZE: options.max_header_bytes,
            **self.own_settings(),
        }
        more = _CONNECTION_WINDOW - self._recv_window
        self._recv_window = _CONNECTION_WINDOW
        self.sender.control(opening + frames.settings(settings) + frames.window_update(0, more))
        self.loop.watch(self.sock, READ | (WRITE if self._write_wanted else 0), self._on_event)
        self.loop.call_later(_TICK_S, self._tick)
        if self.pipe.pending:
            self._on_event(READ)

    def own_settings(self) -> dict[int, int]:
        """Settings of this side only."""
        return {}

    def _watch_writable(self, wanted: bool) -> None:
        """Called with the lock held."""
        self._write_wanted = wanted
        if not self.lost:
            try:
                self.loop.change(self.sock, READ | WRITE if wanted else READ, self._on_event)
            except KeyError:
                return  # not watched yet: `start` looks at what is wanted

    def _broken(self, error: OSError) -> None:
        """Called with the lock held, from any thread."""
        self.cause = self.cause or error
        self.loop.call_soon(lambda: self.lose(f"connection lost: {error}"))

    def _written(self) -> None:
        """A thread has left the socket that was lost meanwhile; the lock is held.

        Closed earlier, its number could have become that of another connection.
        """
        if self.lost:
            self.sock.close()

    def _on_event(self, events: int) -> None:
        if events & WRITE:
            self.sender.writable()
            if self.closing:
                self._end_if_done()
        if not events & READ or self.lost:
            self.after_event()
            return
        if self.closing:
            self._discard()
            return
        fault, lost = self._read()
        if fault is not None:
            self.fail(fault.code, fault.text)
        elif lost:
            self.lose(lost)
        elif self.sender.overflow:
            self.fail(ErrorCode.ENHANCE_YOUR_CALM, "too many answers are not read")
        elif self.pipe.pending:
            self.loop.call_soon(lambda: self._on_event(READ))
        if not self.lost:
            self.after_event()

    def _read(self) -> tuple[ConnectionFault | None, str]:
        """Read what is there; the peer's fault, and why the connection is lost, if it is."""
        self.sender.cork()
        try:
            if not self.receiver.read(self.pipe):
                return None, "connection closed by the peer"
        except ConnectionFault as fault:
            self.cause = fault
            return fault, ""
        except OSError as error:
            self.cause = self.cause or error
            return None, f"connection lost: {error}"
        except Exception:
            report(self.log, "connection of %s: a frame cannot be handled", self.peer_name())
            return ConnectionFault(ErrorCode.INTERNAL_ERROR, "a frame cannot be handled"), ""
        finally:
            self.sender.uncork()
        return None, ""

    def after_event(self) -> None:
        """The socket was read or written; the I/O thread calls."""

    def fail(self, code: ErrorCode, text: str) -> None:
        """Say GOAWAY and close; the I/O thread calls."""
        if self.closing or self.lost:
            return
        self.log.info("connection of %s ends: %s: %s", self.peer_name(), code.name, text)
        self.closing = True
        self._lose_streams(f"connection ended: {code.name}: {text}")
        self.sender.control(frames.goaway(self.last_peer_stream, code, text))
        self.close_soon()

    def close_soon(self) -> None:
        """Close a moment later, whatever is left to send; the I/O thread calls."""
        self.linger()
        self.loop.call_later(_LINGER_S, lambda: self.lose("connection closed"))

    def linger(self) -> None:
        """Send what is left, and close once the peer has ended or a moment after that."""
        self.closing = True
        self._end_if_done()

    def _end_if_done(self) -> None:
        if self.lost or self._shut or not self.sender.empty:
            return
        self._shut = True
        self.loop.call_later(_LINGER_S, lambda: self.lose("connection closed"))
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.lose("connection closed")

    def _discard(self) -> None:
        try:
            if not self.pipe.receive(memoryview(bytearray(_DISCARD_BYTES))):
                self.lose("connection closed")
        except OSError as error:
            self.lose(f"connection lost: {error}")

    def lose(self, text: str) -> None:
        """Forget the connection; the I/O thread calls."""
        if self.lost:
            return
        with self.lock:
            self.lost = self.closing = True
            self.sender.break_locked()
            with contextlib.suppress(KeyError):
                self.loop.forget(self.sock)
            with contextlib.suppress(OSError):
                # Wakes a thread that waits for the socket.
                self.sock.shutdown(socket.SHUT_RDWR)
            if not self.sender.writing:
                self.sock.close()
        self._lose_streams(text)
        self.on_gone()

    def _lose_streams(self, text: str) -> None:
        for stream in list(self.streams.values()):
            stream.closed = True
            with self.lock:
                self.sender.drop_locked(stream)
            stream.on_lost(text)
        self.streams.clear()

    def on_gone(self) -> None:
        """The connection is closed; the I/O thread calls."""

    def peer_name(self) -> str:
        """The peer's address."""
        return ""

    # --- streams

    def local_end_locked(self, stream: Stream) -> None:
        """END_STREAM of `stream` was framed; the lock is held."""
        if stream.remote_ended:
            self.forget_stream(stream)
        else:
            self.on_early_end_locked(stream)

    def on_early_end_locked(self, stream: Stream) -> None:
        """This side has ended a stream before the peer; the lock is held."""

    def forget_stream(self, stream: Stream) -> None:
        """The stream is over on both sides; its last messages may still wait to be read."""
        if self.streams.pop(stream.stream_id, None) is not None:
            self._widened -= stream.window - self.options.stream_window
            stream.drop_idle_reader()
            self.on_stream_gone()

    def on_stream_gone(self) -> None:
        """A stream is over; any thread, perhaps with the lock held."""

    def reset(self, stream: Stream, code: ErrorCode) -> None:
        """End a stream with RST_STREAM; any thread."""
        with self.lock:
            self.reset_locked(stream, code)

    def reset_locked(self, stream: Stream, code: ErrorCode) -> None:
        """See `reset`."""
        if self.streams.get(stream.stream_id) is not stream:
            return
        stream.closed = True
        self.remember_reset(stream.stream_id)
        self.sender.drop_locked(stream)
        self.forget_stream(stream)
        self.sender.control_locked(frames.rst_stream(stream.stream_id, code))

    def run_blocking(self, work: Callable[[], None]) -> None:
        """Run work that takes long outside the I/O thread; StatusError where too much waits."""
        raise NotImplementedError

    # --- windows

    def widen_window(self, stream: Stream, length: int) -> None:
        """A message of `length` bytes was admitted: let the next ones come while it is used.

        A sender that has to wait for each message's window waits for two threads to wake up.
        """
        options = self.options
        most = options.stream_window + options.read_ahead_bytes - self._widened
        window = min(_MESSAGES_AHEAD * length, options.max_stream_window, most)
        if window > stream.window:
            with self.lock:
                if self.streams.get(stream.stream_id) is stream:
                    self._widened += window - stream.window
                    stream.window = window

    def on_data(self, stream_id: int, length: int, *, end_stream: bool) -> Incoming | None:
        """See FrameHandler."""
        if not self.settings_seen:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "got DATA before SETTINGS")
        if length == 0 and not end_stream:
            self._idle_frames.count()
        self._recv_window -= length
        if self._recv_window < 0:
            raise ConnectionFault(
                ErrorCode.FLOW_CONTROL_ERROR, "got more DATA than the connection's window"
            )
        if self._recv_window < _CONNECTION_WINDOW // 2:
            more = _CONNECTION_WINDOW - self._recv_window
            self._recv_window = _CONNECTION_WINDOW
            self.sender.control(frames.window_update(0, more))
        stream = self.streams.get(stream_id)
        if stream is None or stream.remote_ended:
            self.check_closed(stream_id, "DATA")
            return None
        stream.recv_window -= length
        if stream.recv_window < 0:
            raise StreamFault(
                stream_id, ErrorCode.FLOW_CONTROL_ERROR, "got more DATA than the stream's window"
            )
        return stream

    def on_payload(self, stream: Incoming, data: memoryview) -> None:
        """See FrameHandler."""
        assert isinstance(stream, Stream)
        stream.count_data(len(data))
        stream.guarded(stream.reader.feed, data)
        reader = stream.reader
        if reader.missing:
            self.widen_window(stream, reader.length)
            stream.open_window()
        elif stream.recv_window <= stream.window // 2:
            stream.open_window()

    def on_filled(self, stream: Incoming, count: int) -> None:
        """See FrameHandler."""
        assert isinstance(stream, Stream)
        stream.count_data(count)
        stream.guarded(stream.reader.filled, count)
        if stream.reader.idle:
            stream.open_window()

    def on_data_end(self, stream: Incoming) -> None:
        """See FrameHandler."""
        assert isinstance(stream, Stream)
        self.remote_end(stream)

    def remote_end(self, stream: Stream) -> None:
        """The peer has ended its side of a stream."""
        with self.lock:
            stream.remote_ended = True
            ended = stream.local_ended
        stream.guarded(stream.reader.end)
        if ended:
            self.forget_stream(stream)

    # --- time

    def _tick(self) -> None:
        if self.lost:
            return
        now_s = time.monotonic()
        if self.receiver.bytes_received != self._received_bytes:
            self._received_bytes = self.receiver.bytes_received
            self._received_s = now_s
        if self.closing:
            self._end_if_done()
            self._check_stall(now_s)
        else:
            self.check_times(now_s)
        if not self.lost:
            self.loop.call_later(_TICK_S, self._tick)

    def on_silence(self) -> None:
        """The peer does not answer a PING."""
        self.lose("keepalive: the peer does not answer")

    def check_times(self, now_s: float) -> None:
        """End what has taken too long; called about once a second."""
        options = self.options
        silent_s = now_s - self._received_s
        if options.keepalive_s is not None:
            asked = self.pinged_s
            if asked is None and silent_s >= options.keepalive_s:
                self.ping()
            elif asked is not None and now_s - max(asked, self._received_s) >= (
                options.keepalive_timeout_s
            ):
                self.on_silence()
                return
        stall_s = self.stall_s()
        if stall_s is None or self._check_stall(now_s):
            return
        for stream in list(self.streams.values()):
            if stream.pending and now_s - stream.progress_s >= stall_s:
                self.reset(stream, ErrorCode.CANCEL)
                stream.on_reset(ErrorCode.CANCEL)

    def stall_s(self) -> float | None:
        """How long the peer may read nothing of what is sent; None: for ever."""
        return self.options.send_stall_s

    def _check_stall(self, now_s: float) -> bool:
        """Give up a peer that takes nothing of what is sent; whether it was."""
        stall_s = self.stall_s()
        if self.lost or stall_s is None or not self.sender.blocked:
            return self.lost
        if now_s - self.sender.progress_s >= stall_s:
            self.lose("the peer reads nothing")
        return self.lost
