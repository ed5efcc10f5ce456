"""A gRPC channel: connections to one server or several that serve the same, and calls on them."""

import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from transport import call as call_headers
from transport import tls
from transport.calling.call_spec import CallSpec
from transport.calling.callables import (
    CallMetadata,
    Deserializer,
    Serializer,
    StreamStream,
    StreamUnary,
    UnaryStream,
    UnaryUnary,
)
from transport.calling.client_call import ClientCall
from transport.calling.dialing import Subchannel
from transport.calling.health import PATH as HEALTH_PATH
from transport.calling.resolving import Resolving, Server, authority
from transport.calling.servers import Policy, Servers
from transport.http2 import headers
from transport.http2.receiving import SCRATCH_BYTES
from transport.loop import Loop
from transport.options import ConnectionOptions
from transport.status import Code, Status
from transport.workers import Workers

_LAST_WRITES_S = 1.5
_CLOSED = Status(Code.CANCELLED, "Channel closed!")


@dataclass(frozen=True, slots=True)
class ChannelOptions:
    """What a client chooses. Times in seconds."""

    connection: ConnectionOptions = field(default_factory=ConnectionOptions)
    connections_per_server: int = 1
    balance: Policy = "least_requests"
    resolving: Resolving = field(default_factory=Resolving)
    user_agent: str = "argmax-transport"
    # The name that certificates must have; None: the host of each server's address.
    server_name: str | None = None
    # The :authority of calls; None: `server_name`, or else the first address.
    authority: str | None = None
    # Whether one of several servers gets no calls while its health service says NOT_SERVING.
    watch_health: bool = False
    connect_s: float = 10.0
    # Of successive attempts: the first pause, and the longest.
    backoff_s: tuple[float, float] = (0.2, 5.0)
    compression: str = "identity"
    receive_ahead_bytes: int = 16 * 2**20


class Channel:
    """Calls servers at `addresses`: [dns:///]HOST:PORT, [HOST]:PORT or unix:/path each.

    Each address of a name is a server; the names are looked up in threads, see Resolving. Nothing
    is looked up or connected before the first call. With `balance` "least_requests" a call goes to
    the server with the fewest calls of this channel, and to those with equally few in turn; with
    "round_robin" to all in turn. Of several connections each that is lost is made again.
    """

    def __init__(
        self,
        addresses: str | Sequence[str],
        options: ChannelOptions | None = None,
        tls_context: ssl.SSLContext | None = None,
    ) -> None:
        """With `tls_context`, connections use TLS; ALPN is set on it. ValueError: bad addresses."""
        self._options = options = options or ChannelOptions()
        addresses = [addresses] if isinstance(addresses, str) else list(addresses)
        self._authority = options.authority or options.server_name or authority(addresses[0])
        if tls_context is not None:
            tls.require_http2(tls_context)
        self._scheme = "http" if tls_context is None else "https"
        self.loop = Loop("grpc-channel")
        self._lock = threading.Lock()
        self._closed = False
        self._pending: dict[ClientCall, bytes] = {}
        self._calls: set[ClientCall] = set()
        unpackers = Workers(1, 2**31, "grpc-unpack")
        self._unpackers = unpackers
        health_block = headers.encode(self._fields(HEALTH_PATH)) if options.watch_health else None
        scratch = memoryview(bytearray(SCRATCH_BYTES))

        def subchannel(server: Server, on_change: Callable[[Subchannel], None]) -> Subchannel:
            return Subchannel(
                server,
                self.loop,
                scratch,
                unpackers,
                options.connection,
                tls_context,
                options.server_name,
                options.backoff_s,
                options.connect_s,
                health_block,
                on_change,
            )

        self._servers = Servers(
            addresses,
            options.resolving,
            options.balance,
            options.connections_per_server,
            subchannel,
            lambda: self.loop.call_soon(self._send_pending),
            self._all_failed,
            lambda: bool(self._pending),
        )

    def unary_unary(
        self,
        path: str,
        request_serializer: Serializer | None = None,
        response_deserializer: Deserializer | None = None,
    ) -> UnaryUnary:
        """Calls of one message that are answered by one."""
        return UnaryUnary(self, path, request_serializer, response_deserializer)

    def unary_stream(
        self,
        path: str,
        request_serializer: Serializer | None = None,
        response_deserializer: Deserializer | None = None,
    ) -> UnaryStream:
        """Calls of one message that are answered by a stream."""
        return UnaryStream(self, path, request_serializer, response_deserializer)

    def stream_unary(
        self,
        path: str,
        request_serializer: Serializer | None = None,
        response_deserializer: Deserializer | None = None,
    ) -> StreamUnary:
        """Calls of a stream that are answered by one message."""
        return StreamUnary(self, path, request_serializer, response_deserializer)

    def stream_stream(
        self,
        path: str,
        request_serializer: Serializer | None = None,
        response_deserializer: Deserializer | None = None,
    ) -> StreamStream:
        """Calls of a stream that are answered by a stream."""
        return StreamStream(self, path, request_serializer, response_deserializer)

    @property
    def servers(self) -> tuple[str, ...]:
        """The servers that the addresses stand for now, as `ClientCall.server` names them.

        A name has none before its first look-up.
        """
        return self._servers.names

    @property
    def tried(self) -> bool:
        """Whether each of the servers is connected, or could not be when it was last tried."""
        return self._servers.tried

    def close(self) -> None:
        """Cancel the calls, close the connections."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            calls = list(self._calls)
            self._pending.clear()
        for call in calls:
            call.end(_CLOSED)
        self._servers.close()
        self.loop.call_later(_LAST_WRITES_S, self.loop.stop)
        self._unpackers.close()

    def __enter__(self) -> "Channel":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- calls

    def new_call(
        self,
        path: str,
        deserializer: Deserializer | None,
        timeout: float | None,
        metadata: CallMetadata | None,
        *,
        wait_for_ready: bool | None,
        compression: str | None,
    ) -> ClientCall:
        """A call that is not begun. ValueError: the channel is closed, or bad metadata."""
        compression = compression or self._options.compression
        fields = self._fields(path)
        if compression != "identity":
            fields.append(("grpc-encoding", compression))
        if metadata:
            fields += call_headers.encode_metadata(metadata)
        spec = CallSpec(
            headers.encode(fields),
            deserializer,
            timeout,
            bool(wait_for_ready),
            compression,
            self._options.receive_ahead_bytes,
        )
        call = ClientCall(self, spec)
        with self._lock:
            if self._closed:
                raise ValueError("Cannot invoke RPC on closed channel!")
            self._calls.add(call)
        return call

    def _fields(self, path: str) -> list[tuple[str, str]]:
        """Headers of every call."""
        return [
            *((":method", "POST"), (":scheme", self._scheme), (":path", path)),
            *((":authority", self._authority), ("te", "trailers")),
            *(("content-type", call_headers.CONTENT_TYPE),),
            *(("user-agent", self._options.user_agent),),
            *(("grpc-accept-encoding", call_headers.ACCEPT_ENCODING),),
        ]

    def dispatch(self, call: ClientCall, block: bytes) -> None:
        """See Dispatcher."""
        while True:
            best = self._servers.pick()
            if best is not None:
                if best.open(call, block):
                    return
                continue
            with self._lock:
                if self._closed:
                    break
                self._pending[call] = block
            status = self._want(call)
            if status is not None:
                call.end(status)
            return
        call.end(_CLOSED)

    def _want(self, call: ClientCall) -> Status | None:
        """Have connections made; the end of a call that does not wait, where none can be."""
        self._servers.want()
        # One may have become ready since it was looked for.
        if self._servers.pick() is not None:
            self._send_pending()
        elif not call.wait_for_ready and self._servers.failed:
            return self._servers.not_connected()
        return None

    def _all_failed(self) -> None:
        status = self._servers.not_connected()
        with self._lock:
            failed = [call for call in self._pending if not call.wait_for_ready]
            waiting = len(self._pending) - len(failed)
        for call in failed:
            call.end(status)
        if waiting:
            self._servers.want()

    def _send_pending(self) -> None:
        with self._lock:
            calls = list(self._pending)
            self._pending.clear()
        for call in calls:
            call.dispatch()

    def forget(self, call: ClientCall) -> None:
        """See Dispatcher."""
        with self._lock:
            self._pending.pop(call, None)
            self._calls.discard(call)
