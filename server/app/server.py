"""Compose the service from a Config, start it, drain it."""

import logging
import time
from concurrent.futures import ThreadPoolExecutor

import grpc

from server.app import listening, logs
from server.app.config import REJECT, Config
from server.batching.byte_budget import ByteBudget
from server.batching.shared_memory import Regions
from server.errors import StartError
from server.loaded_model.model import ModelLimits
from server.onnx import provider_library
from server.repository.poll import RepositoryPoll
from server.repository.preflight import Preflight
from server.repository.repository import POLL, Control, Repository
from server.rpc import reflection
from server.rpc.admission import Receiver
from server.rpc.health import SERVICE as HEALTH
from server.rpc.health import Health
from server.rpc.idle_trim import IdleTrim
from server.rpc.inference import Inference
from server.rpc.repository_servicer import RepositoryServicer
from server.rpc.rpcs import SERVICE, handlers
from server.rpc.security.authorization import Authorization
from server.rpc.security.credentials import server_credentials
from server.rpc.servicer import Servicer, StreamLimits
from server.rpc.settings_servicer import SettingsServicer
from server.rpc.shared_memory_servicer import MemoryServicer
from server.rpc.thread_pools import ThreadPools

_log = logging.getLogger(__name__)

_REFLECTION_THREADS = 4
_REFUSING_THREADS = 4
_CHECK_RECEIVE_S = 2.0
_LAST_CALLS_S = 0.2
_LAST_ANSWERS_S = 2.0


class Server:
    """A service that listens; `drain` is the only way to end it."""

    def __init__(self, config: Config) -> None:
        """Load the models and listen. StartError names the file, option or port at fault."""
        self._config = config
        listening.check(config.address)
        # Even if no model is there yet: a model loaded later may need it.
        provider_library.require(config.ep)
        # Before the models, because loading them may take long.
        credentials, authorization = _credentials(config), _authorization(config)
        self._repository = Repository(
            config.models,
            ModelLimits(
                threads=config.threads,
                ep=config.ep,
                max_batch_rows=config.max_batch_rows,
                group_rows=config.group_rows,
                queue_delay_ns=config.queue_delay_us * 1000,
                finite_only=config.non_finite == REJECT,
                deterministic=config.deterministic,
            ),
            Control(config.model_control, config.load_model),
            Preflight(config.validation_s, config.validation_bytes) if config.validation else None,
        )
        # Only clients on this machine can use shared memory.
        shared = config.local_only if config.shared_memory is None else config.shared_memory
        regions = Regions(enabled=shared, prefix=config.shared_memory_prefix or "")
        self._memory = MemoryServicer(regions)
        self._settings = SettingsServicer(self._repository, logs)
        idle_trim = IdleTrim()
        self._servicer = Servicer(
            self._repository,
            Inference(self._repository, ByteBudget(config.max_inflight_bytes), regions),
            StreamLimits(config.max_stream_bytes, config.stream_idle_s),
            idle_trim,
            {"max_message_bytes": str(config.max_message_bytes)},
        )
        self._repository_servicer = RepositoryServicer(self._repository)
        self._pools = ThreadPools(config.workers, config.max_waiting, config.max_streams)
        self._receiver = Receiver(config.receive_s, idle_trim)
        # The message of a health check is so small that it arrives with the call.
        shorter_s = min(config.receive_s or _CHECK_RECEIVE_S, _CHECK_RECEIVE_S)
        self._check_receiver = Receiver(shorter_s, idle_trim)
        self._health = Health(("", SERVICE), self._check_receiver)
        try:
            self._grpc = self._listen(credentials, authorization)
        except StartError:
            self._close()
            raise
        self._poll = (
            RepositoryPoll(self._repository, config.poll_s)
            if config.model_control == POLL
            else None
        )
        self._grpc.start()
        self._health.start()
        _log.info("serving", extra={"address": self.address, "tls": credentials is not None})
        if not config.local_only and config.tls_client_ca is None and authorization is None:
            _log.warning(
                "no authentication configured: anyone who can reach the address can call the server"
            )
        if not config.local_only and authorization is not None and credentials is None:
            _log.warning("tokens are sent in plain text: anyone on the network path can read them")

    def drain(self) -> None:
        """Reject new requests, finish those in flight within the grace period, then close."""
        _log.info("draining", extra={"grace_s": self._config.grace_s})
        self._health.stop()
        self._repository.stop()
        self._servicer.stop_streams()
        # gRPC cancels calls that still wait for one of its threads. For a moment we reject new
        # calls ourselves, with a status that clients retry.
        time.sleep(_LAST_CALLS_S)
        if not self._pools.wait_until_idle(self._config.grace_s):
            _log.warning("grace period is over: running requests are cancelled")
        # Other calls, such as watches of the health service, are not waited for.
        self._grpc.stop(_LAST_ANSWERS_S).wait()
        if self._poll is not None:
            self._poll.stop()
        self._close()
        _log.info("stopped")

    def _close(self) -> None:
        self._receiver.close()
        self._check_receiver.close()
        self._repository.close()

    def _listen(
        self, credentials: grpc.ServerCredentials | None, authorization: Authorization | None
    ) -> grpc.Server:
        config = self._config
        # Every other RPC has its own threads.
        pool = ThreadPoolExecutor(_REFLECTION_THREADS, "reflection")
        server = grpc.server(
            pool,
            options=_channel_options(config),
            interceptors=() if authorization is None else (authorization,),
        )
        servicers = (self._servicer, self._memory, self._settings, self._repository_servicer)
        table = handlers(servicers, self._receiver, self._pools)
        server.add_generic_rpc_handlers((table, self._health.handlers))
        reflected = config.local_only if config.reflection is None else config.reflection
        if reflected:
            reflection.enable(server, (SERVICE, HEALTH, reflection.SERVICE))
        self.address = _bind(server, config.address, credentials)
        return server


def _credentials(config: Config) -> grpc.ServerCredentials | None:
    """Credentials of the TLS options, None without them."""
    if config.tls_cert is None or config.tls_key is None:
        for flag, path in (
            ("--tls-cert", config.tls_cert),
            ("--tls-key", config.tls_key),
            ("--tls-client-ca", config.tls_client_ca),
        ):
            if path is not None:
                raise StartError(f"got {flag} {path} alone, expected --tls-cert and --tls-key")
        return None
    return server_credentials(config.tls_cert, config.tls_key, config.tls_client_ca)


def _authorization(config: Config) -> Authorization | None:
    """Interceptor that checks tokens, None without a token file."""
    if config.token_file is None:
        return None
    if config.tls_cert is None and not config.local_only and not config.plaintext_tokens:
        raise StartError(
            f"got --token-file for {config.address} without TLS: tokens could be read on the "
            "network; expected --tls-cert and --tls-key, or --plaintext-tokens on if another layer "
            "encrypts"
        )
    return Authorization(config.token_file, ThreadPoolExecutor(_REFUSING_THREADS, "refusing"))


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
    ]


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
