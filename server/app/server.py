"""Compose the service from a Config, start it, drain it."""

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from command_line import extras
from server.app import listening, logs, sizing
from server.app.config import NATIVE, REJECT, Config
from server.app.endpoint import Endpoint, GrpcioEndpoint, NativeEndpoint
from server.app.management.sources import Sources
from server.app.observers.observers import Observers
from server.batching.byte_budget import ByteBudget
from server.batching.shared_memory import Regions
from server.errors import StartError
from server.loaded_model.model import ModelLimits
from server.onnx import provider_library
from server.repository.poll import RepositoryPoll
from server.repository.preflight.trials import Preflight
from server.repository.repository import POLL, Control, Repository
from server.rpc import reflection
from server.rpc.accounting.call_ends import CallEnds
from server.rpc.accounting.request_ends import RequestEnds
from server.rpc.admission import Receiver
from server.rpc.health import SERVICE as HEALTH
from server.rpc.health import Health
from server.rpc.idle_trim import IdleTrim
from server.rpc.inference import Inference
from server.rpc.native.control_call import ControlMethods
from server.rpc.native.methods import InferenceMethods
from server.rpc.repository_servicer import RepositoryServicer
from server.rpc.rpcs import SERVICE, handlers, native_methods
from server.rpc.security.authorization import Authorization
from server.rpc.security.credentials import server_context, server_credentials
from server.rpc.servicer import Servicer, StreamLimits
from server.rpc.settings_servicer import SettingsServicer
from server.rpc.shared_memory_servicer import MemoryServicer
from server.rpc.thread_pools import ThreadPools, started

if TYPE_CHECKING:
    from server.app.management.port import ManagementPort

_log = logging.getLogger(__name__)

Made = TypeVar("Made")

_REFUSING_THREADS = 4
_LAST_CALLS_S = 0.2
_LAST_ANSWERS_S = 2.0


class Server:
    """A service that listens; `drain` is the only way to end it."""

    def __init__(self, config: Config, on_loaded: Callable[[], object] | None = None) -> None:
        """Load the models and listen. StartError names the file, option or port at fault.

        `on_loaded` is called between the two: from then on requests may be accepted.
        """
        self._config = config
        listening.check(config.address)
        # First, so that probes are answered while models are loaded.
        self._management = _management_port(config)
        try:
            self._start(config, on_loaded)
        except BaseException:
            self._close_management()
            raise

    def _start(self, config: Config, on_loaded: Callable[[], object] | None) -> None:
        # Even if no model is there yet: a model loaded later may need it.
        provider_library.require(config.ep)
        # Before the models, because loading them may take long.
        native = config.transport == NATIVE
        self._credentials = None if native else _tls(config, server_credentials)
        self._tls_context = _tls(config, server_context) if native else None
        authorization = _authorization(config)
        self._request_ends, self._call_ends = RequestEnds(), CallEnds()
        self._observers = Observers(config, self._request_ends, self._call_ends)
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
                instances=config.instances,
                session=config.session,
            ),
            Control(config.model_control, config.load_model),
            Preflight(config.validation_s, config.validation_bytes) if config.validation else None,
        )
        # Only clients on this machine can use shared memory.
        shared = config.local_only if config.shared_memory is None else config.shared_memory
        regions = Regions(enabled=shared, prefix=config.shared_memory_prefix or "")
        self._memory = MemoryServicer(regions)
        self._settings = SettingsServicer(self._repository, logs, self._observers.trace_settings)
        idle_trim = IdleTrim()
        self._budget = budget = ByteBudget(config.max_inflight_bytes)
        inference = Inference(self._repository, budget, regions, self._request_ends)
        streams = StreamLimits(config.max_stream_bytes, config.stream_idle_s)
        # A message over the whole byte budget is rejected, too.
        largest_bytes = min(config.max_message_bytes, config.max_inflight_bytes)
        shown = {"max_message_bytes": str(largest_bytes)}
        self._servicer = Servicer(self._repository, inference, streams, idle_trim, shown)
        self._repository_servicer = RepositoryServicer(self._repository)
        self._pools = ThreadPools(
            config.workers, config.max_waiting, config.max_streams, blocking=not native
        )
        self._streams = InferenceMethods(
            self._repository, inference, streams, idle_trim, self._pools
        )
        self._control = ControlMethods(inference, self._pools.control, idle_trim)
        self._idle_trim = idle_trim
        # The project's own transport bounds by itself how long messages take.
        self._receiver = None if native else Receiver(config.receive_s, idle_trim)
        self._check_receiver = None if native else Receiver(config.quick_receive_s, idle_trim)
        self._health = Health(("", SERVICE), self._check_receiver)
        if on_loaded is not None:
            on_loaded()
        try:
            self._endpoint = self._listen(authorization)
        except StartError:
            self._close()
            raise
        self._poll = (
            RepositoryPoll(self._repository, config.poll_s)
            if config.model_control == POLL
            else None
        )
        self.address = self._endpoint.address
        self._endpoint.start()
        self._health.start()
        if self._management is not None:
            self._management.serve(
                Sources(
                    totals=self._repository.totals,
                    requests=self._request_ends,
                    calls=self._call_ends,
                    budget=budget,
                    streams=self._pools.streams,
                    connections=lambda: self._endpoint.connections,
                    dropped=self._observers.dropped,
                ),
                self._servicer,
                None if authorization is None else authorization.check,
            )
        started = {"address": self.address, "tls": config.tls_cert is not None}
        _log.info("serving", extra={**started, **sizing.described(config)})
        for warning in sizing.memory_warnings(config):
            _log.warning(warning)
        if not config.local_only and config.tls_client_ca is None and authorization is None:
            _log.warning(
                "no authentication configured: anyone who can reach the address can call the server"
            )
        if not config.local_only and authorization is not None and config.tls_cert is None:
            _log.warning("tokens are sent in plain text: anyone on the network path can read them")

    @property
    def waiting(self) -> int:
        """Requests that wait to be executed now, of all models."""
        return sum(each.waiting for each in self._repository.totals.read().values())

    def drain(self) -> None:
        """Reject new requests, finish those in flight within the grace period, then close."""
        _log.info("draining", extra={"grace_s": self._config.grace_s})
        for step in (
            self._health.stop,
            self._repository.stop,
            self._servicer.stop_streams,
            self._streams.stop_streams,
            self._finish_calls,
            self._stop_polling,
            self._close,
            self._close_management,
        ):
            try:
                step()
            except Exception:
                # Without memory or threads, too, what follows has to be done.
                _log.exception("a step of the drain failed")
        _log.info("stopped")

    def _finish_calls(self) -> None:
        # gRPC cancels calls that still wait for one of its threads. For a moment we reject new
        # calls ourselves, with a status that clients retry.
        time.sleep(_LAST_CALLS_S)
        idle = self._pools.wait_until_idle(self._config.grace_s)
        if not idle:
            _log.warning("grace period is over: running requests are cancelled")
        # Other calls, such as watches of the health service, are not waited for.
        self._endpoint.stop(_LAST_ANSWERS_S if idle else 0.0)

    def _stop_polling(self) -> None:
        if self._poll is not None:
            self._poll.stop()

    def _close_management(self) -> None:
        if self._management is not None:
            self._management.close()

    def _close(self) -> None:
        for receiver in (self._receiver, self._check_receiver):
            if receiver is not None:
                receiver.close()
        self._repository.close()
        self._streams.close()
        self._observers.close()
        self._idle_trim.close()

    def _listen(self, authorization: Authorization | None) -> Endpoint:
        config = self._config
        servicers = (self._servicer, self._memory, self._settings, self._repository_servicer)
        others = [self._health.handlers]
        if config.local_only if config.reflection is None else config.reflection:
            others.append(reflection.handlers((SERVICE, HEALTH, reflection.SERVICE)))
        if self._receiver is None:
            methods = native_methods(
                servicers, self._streams, self._control, self._pools, config.quick_receive_s
            )
            calls_count = self._management is not None or self._call_ends.observed
            return NativeEndpoint(
                config,
                methods,
                others,
                authorization,
                self._tls_context,
                lambda: self._budget.short,
                self._idle_trim.trim_soon,
                self._call_ends.ended if calls_count else None,
            )
        return GrpcioEndpoint(
            config,
            (handlers(servicers, self._receiver, self._pools), *others),
            () if authorization is None else (authorization,),
            self._credentials,
        )


def _management_port(config: Config) -> "ManagementPort | None":
    """The management port, which listens already; None without its address."""
    address = config.metrics_address
    if address is None:
        return None
    try:
        # Only servers that have the port need what it imports.
        module = extras.imported("server.app.management.port", "server", listening.METRICS_ADDRESS)
    except extras.MissingExtra as error:
        raise StartError(str(error)) from None
    port: ManagementPort = module.ManagementPort(address, config.transport, config.ep.name)
    _log.info("management port", extra={"address": port.address})
    if not listening.local(address):
        _log.warning(
            "metrics are open to the network: anyone who can reach the management port can read "
            "the names of models and how much they are used",
            extra={"address": port.address},
        )
    return port


def _tls(config: Config, make: Callable[[Path, Path, Path | None], Made]) -> Made | None:
    """Call `make` with the TLS options; None without them."""
    if config.tls_cert is None or config.tls_key is None:
        for flag, path in (
            ("--tls-cert", config.tls_cert),
            ("--tls-key", config.tls_key),
            ("--tls-client-ca", config.tls_client_ca),
        ):
            if path is not None:
                raise StartError(f"got {flag} {path} alone, expected --tls-cert and --tls-key")
        return None
    return make(config.tls_cert, config.tls_key, config.tls_client_ca)


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
    # The other transport rejects calls in the thread that reads them.
    pool = ThreadPoolExecutor if config.transport == NATIVE else started
    return Authorization(config.token_file, pool(_REFUSING_THREADS, "refusing"))
