"""The server's side of one connection: requests become calls of methods."""

import functools
import math
import random
import socket
import time
from collections.abc import Callable
from typing import Protocol

from transport import tls
from transport.http2 import fields, frames
from transport.http2.connection import Connection
from transport.http2.frames import ConnectionFault, ErrorCode, StreamFault
from transport.http2.headers import HeaderReader
from transport.http2.pipes import Pipe
from transport.http2.stream import Stream
from transport.loop import Loop
from transport.options import ServerConnectionOptions
from transport.reporting import report
from transport.serving import request
from transport.serving.ahead import AheadBytes
from transport.serving.answer_frames import refusal
from transport.serving.ended_call import OnCallEnded, RefusedCall
from transport.serving.handler import Method
from transport.serving.request import Request
from transport.serving.server_call import ServerCall
from transport.status import Code, Status, StatusError

_DRAIN_PING_S = 1.0
# While others wait for memory.
_PRESSED_S = 5.0
# Clients that connected together do not all come back together.
_AGE_JITTER = 0.1
_TOO_OLD = Status(Code.UNAVAILABLE, "the connection has reached its maximum age")
# Smaller messages leave no memory behind that is worth a word.
_LARGE_BYTES = 1024 * 1024
_STANDS_STILL = Status(
    Code.RESOURCE_EXHAUSTED, "the message stands still while others wait for the memory it holds"
)
# What a client makes of REFUSED_STREAM.
_NO_MORE_CALLS = Status(Code.UNAVAILABLE, "the connection takes no more calls")
_NOT_GRPC_TEXT = {
    405: "gRPC needs POST",
    415: "expected the content-type application/grpc",
}


class Host(Protocol):
    """The server, as its connections see it."""

    @property
    def on_call_ended(self) -> OnCallEnded | None:
        """Called once with each call that has ended, in any thread."""

    @property
    def ahead(self) -> AheadBytes:
        """What clients have sent ahead of messages that have no room yet."""

    def method(self, path: str) -> Method | None:
        """What answers calls of `path`."""

    def on_connection_gone(self, connection: "ServerConnection") -> None:
        """A connection is closed."""

    def run_blocking(self, work: Callable[[], None]) -> bool:
        """Run short work that blocks or takes long, such as unpacking, outside the I/O thread."""

    def pressed(self) -> bool:
        """Whether calls wait for memory that others hold."""

    def on_dropped(self) -> None:
        """The memory of a large message was freed that no handler got; any thread."""


class ServerConnection(Connection):
    """See the module."""

    def __init__(
        self,
        host: Host,
        loop: Loop,
        sock: socket.socket,
        pipe: Pipe,
        options: ServerConnectionOptions,
        scratch: memoryview,
        peer: str,
    ) -> None:
        super().__init__(loop, sock, pipe, options, scratch)
        self.server_options = options
        self.last_call_s = time.monotonic()
        self.on_call_ended = host.on_call_ended
        self.ahead = host.ahead
        self._host = host
        self._peer = peer
        self._requests: HeaderReader[Request] = HeaderReader(
            request.parse, options.max_header_bytes
        )
        self._draining = False
        self._held: list[ServerCall] = []
        self._pressed = False
        # Messages under way while others wait: how many bytes are missing, and since when.
        self._standing: dict[Stream, tuple[int, float]] = {}
        # When the client is asked to connect anew, and from then on when its last calls are ended.
        self._old_at_s = self._end_at_s = math.inf
        if options.max_age_s is not None:
            jitter = random.uniform(1 - _AGE_JITTER, 1 + _AGE_JITTER)
            self._old_at_s = self.last_call_s + jitter * options.max_age_s

    @functools.cached_property
    def auth_context(self) -> dict[str, list[bytes]]:
        """What TLS says of the client, by grpcio's names."""
        return tls.auth_context(self.sock)

    def own_settings(self) -> dict[int, int]:
        """See Connection."""
        return {frames.MAX_CONCURRENT_STREAMS: self.server_options.max_concurrent_streams}

    def peer_name(self) -> str:
        """See Connection."""
        return self._peer

    def is_idle(self, stream_id: int) -> bool:
        """See Connection."""
        return stream_id > self.last_peer_stream or stream_id % 2 == 0

    def on_gone(self) -> None:
        """See Connection."""
        self._host.on_connection_gone(self)

    # --- requests

    def on_headers(self, stream_id: int, block: bytes, *, end_stream: bool) -> None:
        """See Connection."""
        try:
            head = self._requests.read(block)
        except ConnectionFault as fault:
            if fault.code is ErrorCode.ENHANCE_YOUR_CALM:
                self.on_endless_headers(stream_id)
            raise
        stream = self.streams.get(stream_id)
        if stream is not None or stream_id <= self.last_peer_stream:
            self._trailers(stream_id, stream, head, end_stream=end_stream)
            return
        if stream_id % 2 == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"got a request on stream {stream_id}")
        self.last_peer_stream = stream_id
        self.last_call_s = time.monotonic()
        if head.malformed:
            raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, head.malformed)
        if self._draining or len(self.streams) >= self.server_options.max_concurrent_streams:
            # Not counted as the peer's fault: it may not have seen the limit yet.
            self.count_reset()
            self.remember_reset(stream_id)
            self.sender.control(frames.rst_stream(stream_id, ErrorCode.REFUSED_STREAM))
            self._report_refusal(_NO_MORE_CALLS, head)
            return
        if end_stream and head.content_length:
            raise StreamFault(
                stream_id, ErrorCode.PROTOCOL_ERROR, "content-length is not that of the DATA"
            )
        server_call = ServerCall(self, stream_id, head, self.options.max_message_bytes)
        self.streams[stream_id] = server_call
        self._begin(server_call, head)
        if end_stream:
            self.remote_end(server_call)

    def on_endless_headers(self, stream_id: int) -> None:
        """See Connection: the call has its status before the connection ends."""
        if stream_id % 2 == 0 or stream_id <= self.last_peer_stream:
            return
        self.last_peer_stream = stream_id
        status = Status(
            Code.RESOURCE_EXHAUSTED,
            "metadata is larger than the limit: expected at most "
            f"{self.options.max_header_bytes} bytes",
        )
        # A client that is still sending its headers takes the status once it may stop: without the
        # reset, the end of the connection could come first.
        self.sender.control(
            refusal(stream_id, status, self.sender.max_frame)
            + frames.rst_stream(stream_id, ErrorCode.NO_ERROR)
        )
        self._report_refusal(status)

    def _begin(self, server_call: ServerCall, head: Request) -> None:
        try:
            if head.http_status != 200:
                server_call.refuse_http(head.http_status, _NOT_GRPC_TEXT[head.http_status])
                return
            if head.refused is not None:
                raise head.refused
            if head.size > self.options.max_header_bytes:
                raise StatusError(
                    Code.RESOURCE_EXHAUSTED,
                    f"metadata is larger than the limit: got at least {head.size} bytes, expected "
                    f"at most {self.options.max_header_bytes}",
                )
            method = self._host.method(server_call.path)
            if method is None:
                raise StatusError(Code.UNIMPLEMENTED, f"unknown method {server_call.path}")
            server_call.handler = method(server_call)
        except StatusError as error:
            server_call.refused = True
            server_call.finish(error.status)
        except Exception:
            report(self.log, "a method failed before its first message")
            server_call.refused = True
            server_call.finish(Status(Code.UNKNOWN, "the method failed"))

    def _report_refusal(self, ended: Status, head: Request | None = None) -> None:
        """Hand a call that never became one to the server's observer."""
        if self.on_call_ended is None:
            return
        path, metadata = ("", ()) if head is None else (head.path, head.metadata)
        try:
            self.on_call_ended(
                RefusedCall(path, self.peer_name(), metadata, ended, time.monotonic())
            )
        except Exception:
            report(self.log, "the observer of calls failed")

    def _trailers(
        self, stream_id: int, stream: Stream | None, head: Request, *, end_stream: bool
    ) -> None:
        if stream is None or stream.remote_ended:
            if stream_id in self._reset_ids:
                return
            if stream_id % 2 == 0 or stream is None:
                raise ConnectionFault(
                    ErrorCode.STREAM_CLOSED, f"got HEADERS on stream {stream_id}, which has ended"
                )
            raise StreamFault(
                stream_id, ErrorCode.STREAM_CLOSED, "got HEADERS after the end of the stream"
            )
        if not end_stream:
            raise StreamFault(
                stream_id, ErrorCode.PROTOCOL_ERROR, "got a second header block without END_STREAM"
            )
        fault = fields.malformed(head.headers, frozenset())
        if fault:
            raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, fault)
        self.remote_end(stream)

    def remote_end(self, stream: Stream) -> None:
        """See Connection."""
        assert isinstance(stream, ServerCall)
        if stream.missing_length:
            raise StreamFault(
                stream.stream_id,
                ErrorCode.PROTOCOL_ERROR,
                "content-length is not that of the DATA",
            )
        super().remote_end(stream)

    def on_early_end_locked(self, stream: Stream) -> None:
        """See Connection: what the client still sends is of no use."""
        stream.closed = True
        self.remember_reset(stream.stream_id)
        self.forget_stream(stream)
        self.sender.add_locked(frames.rst_stream(stream.stream_id, ErrorCode.NO_ERROR))

    # --- messages

    def run_blocking(self, work: Callable[[], None]) -> None:
        """See Connection."""
        if not self._host.run_blocking(work):
            raise StatusError(Code.RESOURCE_EXHAUSTED, "too many compressed messages are waiting")

    def dropped(self, length: int) -> None:
        """The received part of a message of `length` bytes was dropped; the I/O thread calls."""
        if length >= _LARGE_BYTES:
            self._host.on_dropped()

    def too_much_unread(self) -> bool:
        """Whether the client takes no answers, so that no message of it is admitted."""
        return self.sender.pending > self.server_options.max_unread_bytes

    def admit_later(self, server_call: ServerCall) -> None:
        """Ask again once the client has taken answers."""
        self._held.append(server_call)

    def after_event(self) -> None:
        """See Connection."""
        if self._held and not self.too_much_unread():
            held, self._held = self._held, []
            for server_call in held:
                server_call.ask_again()

    # --- time

    def on_silence(self) -> None:
        """See Connection; a client that merely hangs may still read why."""
        self.fail(ErrorCode.NO_ERROR, "ping_timeout")

    def check_times(self, now_s: float) -> None:
        """See Connection."""
        self._pressed = self._host.pressed()
        super().check_times(now_s)
        options = self.server_options
        if self.streams:
            self.last_call_s = now_s
        elif options.idle_s is not None and now_s - self.last_call_s >= options.idle_s:
            self.drain()
        if now_s >= self._end_at_s:
            self.cancel_all(_TOO_OLD)
            self.close_soon()
            return
        if now_s >= self._old_at_s:
            self._old_at_s = math.inf
            if options.max_age_grace_s is not None:
                self._end_at_s = now_s + options.max_age_grace_s
            self.drain()
        for stream in list(self.streams.values()):
            assert isinstance(stream, ServerCall)
            stream.check_receiving(now_s, options.receive_s)
        self._check_standing(now_s)
        if self._draining and not self.streams and not self.closing:
            self.linger()

    def stall_s(self) -> float | None:
        """See Connection."""
        stall_s = super().stall_s()
        return stall_s if stall_s is None or not self._pressed else min(stall_s, _PRESSED_S)

    def _check_standing(self, now_s: float) -> None:
        """While others wait for memory, end calls that hold some for what does not come."""
        before, self._standing = self._standing, {}
        if not self._pressed:
            return
        for stream in list(self.streams.values()):
            missing = stream.reader.missing
            if not missing or stream.reader.waiting:
                continue
            was_missing, since_s = before.get(stream, (0, now_s))
            since_s = since_s if missing == was_missing else now_s
            self._standing[stream] = missing, since_s
            if now_s - since_s >= _PRESSED_S:
                stream.failed(_STANDS_STILL)

    # --- the end

    def drain(self) -> None:
        """Take no new calls, and close when those that run are done; the I/O thread calls."""
        if self._draining or self.closing:
            return
        # Requests that are under way when the client hears of it are still answered: the last
        # stream is named only after a round trip.
        self.sender.control(frames.goaway(frames.MAX_STREAM_ID, ErrorCode.NO_ERROR, "drain"))
        self.ping(self._last_goaway)
        self.loop.call_later(_DRAIN_PING_S, self._last_goaway)

    def _last_goaway(self) -> None:
        if self._draining or self.closing:
            return
        self._draining = True
        self.sender.control(frames.goaway(self.last_peer_stream, ErrorCode.NO_ERROR, "drain"))
        if not self.streams:
            self.linger()

    def on_stream_gone(self) -> None:
        """See Connection."""
        if self._draining and not self.streams:
            self.loop.call_soon(self.linger)

    def cancel_all(self, status: Status) -> None:
        """End all calls with `status`; the I/O thread calls."""
        for stream in list(self.streams.values()):
            stream.failed(status)
