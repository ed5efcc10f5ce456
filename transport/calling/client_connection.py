"""The client's side of one connection."""

import socket
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from transport.calling import response
from transport.calling.client_stream import ClientStream
from transport.calling.response import Response
from transport.http2 import frames
from transport.http2.connection import Connection
from transport.http2.frames import ConnectionFault, ErrorCode, StreamFault
from transport.http2.headers import HeaderReader
from transport.http2.pipes import Pipe
from transport.loop import Loop
from transport.options import ConnectionOptions
from transport.workers import Workers

if TYPE_CHECKING:
    from transport.calling.client_call import ClientCall


class ClientConnection(Connection):
    """See the module. `on_ready` is called once the server has sent its settings."""

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        pipe: Pipe,
        options: ConnectionOptions,
        scratch: memoryview,
        target: str,
        unpackers: Workers,
        on_ready: Callable[["ClientConnection"], None],
        on_ended: Callable[["ClientConnection"], None],
    ) -> None:
        super().__init__(loop, sock, pipe, options, scratch)
        self.target = target
        self.ready = False
        self.serving = True  # as its health service says, where that is watched
        self.draining = False
        self._unpackers = unpackers
        self._on_ready = on_ready
        self._on_ended = on_ended
        self._end_text = "connection closed"
        self._responses: HeaderReader[Response] = HeaderReader(response.parse)
        self._next_id = 1
        # Calls beyond the server's limit of streams.
        self._waiting: deque[ClientCall] = deque()

    def begin(self) -> None:
        """Send the preface; the I/O thread calls."""
        self.start(frames.PREFACE)
        self.loop.call_later(self.options.preface_s, self._check_ready)

    def _check_ready(self) -> None:
        if not self.ready and not self.lost:
            self.cause = TimeoutError("the server sends no HTTP/2 settings")
            self.lose("the server sends no HTTP/2 settings")

    def own_settings(self) -> dict[int, int]:
        """See Connection."""
        return {frames.ENABLE_PUSH: 0}

    def peer_name(self) -> str:
        """See Connection."""
        return self.target

    def is_idle(self, stream_id: int) -> bool:
        """See Connection."""
        return stream_id % 2 == 0 or stream_id >= self._next_id

    def on_settings(self) -> None:
        """See Connection."""
        if not self.ready:
            self.ready = True
            self._on_ready(self)
        self._open_waiting()

    # --- calls

    @property
    def takes_calls(self) -> bool:
        """Whether calls can be begun."""
        return self.ready and not (self.draining or self.closing)

    @property
    def usable(self) -> bool:
        """Whether new calls should go this way."""
        return self.serving and self.takes_calls

    def open(self, client_call: "ClientCall", block: bytes) -> bool:
        """Begin a call; any thread. False: the connection takes no more."""
        with self.lock:
            if not self.takes_calls:
                return False
            if self._next_id >= frames.MAX_STREAM_ID:
                self.draining = True
                self.loop.call_soon(lambda: self._on_ended(self))
                return False
            most = self.peer_settings.get(frames.MAX_CONCURRENT_STREAMS)
            if most is not None and len(self.streams) >= most:
                self._waiting.append(client_call)
                return True
            stream = ClientStream(self, self._next_id, client_call)
            self._next_id += 2
            self.streams[stream.stream_id] = stream
            # Ids have to be sent in order, so the headers may not wait in the stream's turn.
            self.sender.add_locked(
                frames.headers(stream.stream_id, block, self.sender.max_frame, end_stream=False)
            )
            client_call.attach_locked(stream)
        return True

    @property
    def outstanding(self) -> int:
        """Calls that are under way, or wait for the server's limit of streams."""
        return len(self.streams) + len(self._waiting)

    def retire(self) -> None:
        """Take no more calls, and close after the last; the I/O thread calls."""
        self._drain("the server is not among those of its name any more")
        self._open_waiting()

    def _drain(self, text: str) -> None:
        # Within the lock: a call is either among the streams from here on, or goes elsewhere.
        with self.lock:
            self.draining = True
        self._end_text = text

    def on_stream_gone(self) -> None:
        """See Connection."""
        if self._waiting or self.draining:
            self.loop.call_soon(self._open_waiting)

    def _open_waiting(self) -> None:
        waiting, self._waiting = self._waiting, deque()
        for client_call in waiting:
            client_call.dispatch()
        if self.draining and not self.streams and not self.closing:
            self.linger()

    def on_headers(self, stream_id: int, block: bytes, *, end_stream: bool) -> None:
        """See Connection."""
        head = self._responses.read(block)
        stream = self.streams.get(stream_id)
        if stream is None:
            if self.is_idle(stream_id):
                raise ConnectionFault(
                    ErrorCode.PROTOCOL_ERROR, f"got HEADERS on stream {stream_id}, never opened"
                )
            return
        assert isinstance(stream, ClientStream)
        if head.malformed:
            raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, head.malformed)
        if stream.remote_ended:
            raise StreamFault(stream_id, ErrorCode.STREAM_CLOSED, "got HEADERS after the end")
        if not stream.started and head.http_status is None:
            raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, "the answer has no :status")
        stream.headers(head, end_stream=end_stream)

    def run_blocking(self, work: Callable[[], None]) -> None:
        """See Connection."""
        self._unpackers.submit(work)

    def check_times(self, now_s: float) -> None:
        """See Connection; servers object to pings without calls."""
        if self.streams or self.pinged_s is not None:
            super().check_times(now_s)

    # --- the end

    def on_goaway(self, last_stream_id: int, code: int, text: str) -> None:
        """See Connection."""
        self._drain(f"the server closes the connection: {text or code}")
        self._on_ended(self)
        for stream in list(self.streams.values()):
            if stream.stream_id > last_stream_id:
                stream.closed = True
                with self.lock:
                    self.sender.drop_locked(stream)
                    self.forget_stream(stream)
                assert isinstance(stream, ClientStream)
                stream.not_processed(self._end_text)
        self._open_waiting()

    def on_gone(self) -> None:
        """See Connection."""
        self._on_ended(self)
        self._open_waiting()

    def fail(self, code: ErrorCode, text: str) -> None:
        """See Connection."""
        super().fail(code, text)
        self._on_ended(self)

    def lose(self, text: str) -> None:
        """See Connection."""
        if not self.draining:
            self._end_text = text
        super().lose(text)

    def close(self, text: str) -> None:
        """End the connection and the calls on it; the I/O thread calls."""
        if self.lost or self.closing:
            return
        self.draining = True
        self._end_text = text
        self._lose_streams(text)
        self.sender.control(frames.goaway(0, ErrorCode.NO_ERROR))
        self.close_soon()
