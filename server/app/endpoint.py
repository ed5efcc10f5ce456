"""The listening endpoint on either transport: gRPC's own library or the project's."""

import math
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import grpc

from server.app import listening
from server.app.config import Config
from server.app.options.values import INT32_MAX
from server.errors import StartError
from server.rpc.native.methods import authorized
from server.rpc.security.authorization import Authorization
from server.rpc.thread_pools import started
from transport.options import ServerConnectionOptions
from transport.serving.ended_call import OnCallEnded
from transport.serving.grpc_handlers import GrpcHandlers
from transport.serving.handler import Method
from transport.serving.server import Server as TransportServer
from transport.serving.server import ServerOptions
from transport.workers import Workers

_REFLECTION_THREADS = 4
# Of a health check's or of reflection's message.
_OTHER_MESSAGE_BYTES = 4 * 1024
# Of these calls, open on one connection; and between two messages of a reflection stream.
_OTHER_CALLS = 32
_OTHER_IDLE_S = 60.0
# What clients may send ahead of messages that have no room: at least so much.
_LEAST_AHEAD_BYTES = 16 * 1024 * 1024
# Of answers that a client does not read, before no message of its is taken, and for how long.
_UNREAD_BYTES = 16 * 1024 * 1024
_STALL_S = 60.0
# What the transport's clock adds to half of the time in which silence is noticed.
_TICKS_S = 1.5


class Endpoint(Protocol):
    """A listening server."""

    address: str

    @property
    def connections(self) -> int | None:
        """Open connections; None where that is not known."""

    def start(self) -> None:
        """Start to accept calls."""

    def stop(self, grace_s: float) -> None:
        """Accept no more calls, and cancel those that have not ended after `grace_s`."""


class GrpcioEndpoint:
    """grpcio's server: threads that wait for calls, messages copied on their way."""

    def __init__(
        self,
        config: Config,
        handlers: Sequence[grpc.GenericRpcHandler],
        interceptors: Sequence[grpc.ServerInterceptor],
        credentials: grpc.ServerCredentials | None,
    ) -> None:
        """Listen; StartError if that fails."""
        # Everything except reflection has its own threads.
        pool = started(_REFLECTION_THREADS, "reflection")
        self._server = grpc.server(
            pool, options=_channel_options(config), interceptors=interceptors
        )
        self._server.add_generic_rpc_handlers(handlers)
        self.address = _bind(self._server, config.address, credentials)

    @property
    def connections(self) -> int | None:
        """See Endpoint."""
        return None

    def start(self) -> None:
        """See Endpoint."""
        self._server.start()

    def stop(self, grace_s: float) -> None:
        """See Endpoint."""
        self._server.stop(grace_s).wait()


class NativeEndpoint:
    """The project's own transport: an I/O thread, messages received into their own memory."""

    def __init__(
        self,
        config: Config,
        methods: Mapping[str, Method],
        handlers: Sequence[grpc.GenericRpcHandler],
        authorization: Authorization | None,
        tls_context: Callable[[], ssl.SSLContext] | None,
        pressed: Callable[[], bool],
        on_dropped: Callable[[], object],
        on_call_ended: OnCallEnded | None,
    ) -> None:
        """Listen; StartError if that fails. `handlers` have the other methods.

        `pressed`: whether calls wait for memory that others hold. `on_dropped` is called after
        memory of a large message was freed that no handler got, `on_call_ended` with each call that
        has ended.
        """
        others = GrpcHandlers(
            handlers,
            Workers(_REFLECTION_THREADS, 0, "reflection"),
            receive_s=config.quick_receive_s,
            idle_s=min(_OTHER_IDLE_S, config.stream_idle_s or _OTHER_IDLE_S),
            max_message_bytes=_OTHER_MESSAGE_BYTES,
            max_calls=_OTHER_CALLS,
        )

        def method(path: str) -> Method:
            found = methods.get(path) or others(path)
            return found if authorization is None else authorized(found, path, authorization.check)

        try:
            self._server = TransportServer(
                [config.address],
                method,
                _server_options(config, pressed, on_dropped, on_call_ended),
                tls_context,
            )
        except (OSError, ValueError) as error:
            # The address was free before the models were loaded.
            listening.check(config.address)
            raise StartError(f"--address {config.address}: cannot listen there: {error}") from None
        self.address = self._server.addresses[0]

    @property
    def connections(self) -> int | None:
        """See Endpoint."""
        return self._server.connections

    def start(self) -> None:
        """See Endpoint; it listens already."""

    def stop(self, grace_s: float) -> None:
        """See Endpoint."""
        self._server.stop(grace_s)


def _server_options(
    config: Config,
    pressed: Callable[[], bool],
    on_dropped: Callable[[], object],
    on_call_ended: OnCallEnded | None,
) -> ServerOptions:
    # Twice, and looked at once a second: silence is noticed, and then waited for.
    silence_s = max(config.silent_peer_s / 2 - _TICKS_S, config.silent_peer_s / 4)
    return ServerOptions(
        connection=ServerConnectionOptions(
            max_message_bytes=config.max_message_bytes,
            # Detect peers that vanished without closing: ping, then wait for the answer.
            keepalive_s=silence_s,
            keepalive_timeout_s=silence_s,
            preface_s=config.silent_peer_s,
            # The handlers reject calls, with a text for clients.
            max_concurrent_streams=100 + 2 * _most_calls(config),
            receive_s=config.receive_s or None,
            # A client that reads no answers is as good as one that sends nothing.
            send_stall_s=min(_STALL_S, config.stream_idle_s or _STALL_S),
            max_unread_bytes=_UNREAD_BYTES,
            max_age_s=config.max_connection_age_s or None,
            max_age_grace_s=config.max_connection_age_grace_s or None,
        ),
        max_connections=config.max_connections,
        max_ahead_bytes=max(config.max_stream_bytes, _LEAST_AHEAD_BYTES),
        pressed=pressed,
        on_dropped=on_dropped,
        on_call_ended=on_call_ended,
    )


def _channel_options(config: Config) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", config.max_message_bytes),
        ("grpc.max_send_message_length", -1),
        # Otherwise a second server could silently share the port.
        ("grpc.so_reuseport", 0),
        # Per connection. Admission rejects calls, with a text for clients; this limit is higher,
        # because gRPC counts calls for a moment after they have ended.
        ("grpc.max_concurrent_streams", 100 + 2 * _most_calls(config)),
        ("grpc.max_allowed_incoming_connections", config.max_connections),
        ("grpc.server_handshake_timeout_ms", int(1000 * config.silent_peer_s)),
        # Detect peers that vanished without closing: ping after half of the time, then wait for
        # the other half. The keepalive timeout alone does not shorten a ping's own, a minute.
        ("grpc.keepalive_time_ms", int(500 * config.silent_peer_s)),
        ("grpc.keepalive_timeout_ms", int(500 * config.silent_peer_s)),
        ("grpc.http2.ping_timeout_ms", int(500 * config.silent_peer_s)),
        # Without calls too. Clients may ping as often as we do; without calls this needs the same
        # option.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", int(500 * config.silent_peer_s)),
        ("grpc.http2.max_ping_strikes", 3),
        ("grpc.max_metadata_size", 16 * 1024),
        ("grpc.absolute_max_metadata_size", 32 * 1024),
        # gRPC varies the age by a tenth too.
        ("grpc.max_connection_age_ms", _age_ms(config.max_connection_age_s)),
        ("grpc.max_connection_age_grace_ms", _age_ms(config.max_connection_age_grace_s)),
    ]


def _age_ms(seconds: float) -> int:
    """Milliseconds for gRPC, which takes its largest number for no limit."""
    return min(math.ceil(1000 * seconds), INT32_MAX) or INT32_MAX


def _most_calls(config: Config) -> int:
    return config.workers + config.max_waiting + config.max_streams


def _bind(server: grpc.Server, address: str, credentials: grpc.ServerCredentials | None) -> str:
    """Listen, and return the address with the real port."""
    try:
        if credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials)
    except RuntimeError:
        # The address was free before the models were loaded.
        listening.check(address)
        raise StartError(f"--address {address}: gRPC cannot listen there") from None
    if address.startswith(listening.UNIX):
        return address
    return f"{address.rpartition(':')[0]}:{port}"
