"""The server's options, each declared once: flag, environment variable, default, help."""

from dataclasses import dataclass
from pathlib import Path

from command_line import resources
from server.app import listening, sizing
from server.app.options import values as option_values
from server.app.options.declaration import EXECUTION as _EXECUTION
from server.app.options.declaration import option as _option
from server.app.options.of_sessions import SessionOptions
from server.onnx import execution_provider
from server.onnx.execution_provider import ExecutionProvider

MIB = 2**20
# How requests with NaN or infinite values are handled.
PASS, REJECT = "pass", "reject"
GRPCIO, NATIVE = "grpcio", "native"
_QUICK_RECEIVE_S = 2.0


_folder, _file = option_values.path("a folder"), option_values.path("a file")
_seconds = option_values.duration()
_switch = option_values.one_of(auto=None, on=True, off=False)
_on_or_off = option_values.on_or_off
_level = option_values.one_of(debug="debug", info="info", warning="warning", error="error")
# Groups of options in --help, in this order.
_MODELS, _NETWORK, _LIMITS, _BATCHING = "models", "network", "limits", "batching"
_SECURITY, _LOGGING, _TRACING = "security", "logging", "tracing"
_count = option_values.integer(1)
_threads = option_values.integer(1, 100_000)
_bytes = option_values.integer(1, 2**63 - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(SessionOptions):
    """Everything that can be set; read from argv and the environment in one place only."""

    models: Path = _option(
        _MODELS, _folder, "folder", "model repository, laid out as NAME/VERSION/model.onnx"
    )
    model_control: str = _option(
        _MODELS,
        option_values.one_of(none="none", poll="poll", explicit="explicit"),
        "none|poll|explicit",
        "when models are loaded: none: all at start; poll: whenever the folder changes; explicit: "
        "by RPC",
        "none",
    )
    load_model: tuple[str, ...] = _option(
        _MODELS,
        option_values.names,
        "NAME,NAME",
        "models to load at start with --model-control explicit, '*' for all; may be repeated",
        (),
    )
    poll_s: float = _option(
        _MODELS,
        option_values.duration(0.01),
        "seconds",
        "time between two polls of the folder",
        15.0,
    )
    validation: bool = _option(
        _MODELS,
        _on_or_off,
        "on|off",
        "load each model in a separate process first, so that a crash cannot end the server",
        True,
    )
    validation_s: float = _option(
        _MODELS, option_values.duration(0.01), "seconds", "time limit of that process", 120.0
    )
    validation_bytes: int = _option(
        _MODELS, _bytes, "bytes", "memory limit of that process", 16 * 1024 * MIB
    )

    address: str = _option(
        _NETWORK,
        str,
        "address",
        "address to listen on: HOST:PORT (port 0: any free one) or unix:/path",
        "127.0.0.1:8001",
    )
    metrics_address: str | None = _option(
        _NETWORK,
        str,
        "HOST:PORT",
        "address of the management port: metrics and health over HTTP, without authentication",
        None,
        unset="off",
    )
    transport: str = _option(
        _NETWORK,
        option_values.one_of(**{NATIVE: NATIVE, GRPCIO: GRPCIO}),
        f"{NATIVE}|{GRPCIO}",
        "gRPC implementation: this project's own, or grpcio",
        NATIVE,
    )
    max_connections: int = _option(
        _NETWORK, _count, "count", "most open connections; new ones over the limit are closed", 512
    )
    receive_s: float = _option(
        _NETWORK,
        _seconds,
        "seconds",
        "time limit for the message of a unary call to arrive (0: none)",
        60.0,
    )
    silent_peer_s: float = _option(
        _NETWORK,
        option_values.duration(0.1),
        "seconds",
        "close a connection whose peer does not answer pings, or complete the handshake, in time",
        9.0,
    )
    stream_idle_s: float = _option(
        _NETWORK,
        _seconds,
        "seconds",
        "end a stream that sends no message for this long (0: never)",
        600.0,
    )
    max_connection_age_s: float = _option(
        _NETWORK,
        _seconds,
        "seconds",
        "ask clients to connect anew when a connection is this old, within a tenth (0: never)",
        0.0,
    )
    max_connection_age_grace_s: float = _option(
        _NETWORK,
        _seconds,
        "seconds",
        "time for running calls to finish on a connection that is too old (0: no limit)",
        0.0,
    )
    grace_s: float = _option(
        _NETWORK, _seconds, "seconds", "time for running requests to finish after SIGTERM", 30.0
    )
    reflection: bool | None = _option(
        _NETWORK,
        _switch,
        "auto|on|off",
        "gRPC reflection; auto: on for loopback and Unix sockets",
        None,
    )
    shared_memory: bool | None = _option(
        _NETWORK,
        _switch,
        "auto|on|off",
        "tensors in shared memory; auto: on for loopback and Unix sockets",
        None,
    )
    shared_memory_prefix: str | None = _option(
        _NETWORK,
        option_values.prefix,
        "text",
        "accept only shared-memory keys with this prefix",
        None,
        unset="none",
    )

    max_message_bytes: int = _option(
        _LIMITS,
        _count,
        "bytes",
        "largest accepted message; larger ones get RESOURCE_EXHAUSTED",
        128 * MIB,
    )
    max_inflight_bytes: int = _option(
        _LIMITS,
        _bytes,
        "bytes",
        "most bytes of requests in memory, over all clients",
        sizing.inflight_bytes,
    )
    max_stream_bytes: int = _option(
        _LIMITS, _bytes, "bytes", "most bytes read ahead on one stream", 130 * MIB
    )
    max_streams: int = _option(_LIMITS, _threads, "count", "most open streams", 100)
    workers: int = _option(
        _LIMITS, _threads, "count", "threads that handle unary requests, one request each", 64
    )
    max_waiting: int = _option(
        _LIMITS,
        option_values.integer(0),
        "count",
        "most unary requests that wait for a worker; further ones get RESOURCE_EXHAUSTED",
        256,
    )

    max_batch_rows: int = _option(
        _BATCHING, _count, "rows", "most rows of one request, and of one batch", 1024
    )
    group_rows: int | None = _option(
        _BATCHING,
        option_values.auto_or(_count),
        "rows",
        "most rows gathered from several requests for one execution; auto: measured at start",
        None,
    )
    queue_delay_us: int = _option(
        _BATCHING,
        option_values.integer(0),
        "us",
        "microseconds that a request may wait for others to share its batch",
        0,
    )
    deterministic: bool = _option(
        _BATCHING,
        _on_or_off,
        "on|off",
        "pad every batch to one size, so that a row's outputs do not depend on its batch, bit by "
        "bit",
        False,
    )

    threads: int = _option(_EXECUTION, _threads, "count", "threads of each model", resources.cores)
    ep: ExecutionProvider = _option(
        _EXECUTION,
        execution_provider.parse,
        "NAME[:key=value,...]",
        "execution provider: cpu, cuda, tensorrt, openvino, or ONNX Runtime's own name",
        ExecutionProvider,
    )
    non_finite: str = _option(
        _EXECUTION,
        option_values.one_of(**{REJECT: REJECT, PASS: PASS}),
        f"{PASS}|{REJECT}",
        "requests with NaN or infinite values: run them, or reject them",
        PASS,
    )

    tls_cert: Path | None = _option(
        _SECURITY,
        _file,
        "PEM",
        "file with the certificate chain; enables TLS and disables plaintext",
        None,
        unset="none",
    )
    tls_key: Path | None = _option(
        _SECURITY,
        _file,
        "PEM",
        "file with the certificate's key, without a passphrase",
        None,
        unset="none",
    )
    tls_client_ca: Path | None = _option(
        _SECURITY,
        _file,
        "PEM",
        "file with CA certificates; clients must present a certificate signed by one of them",
        None,
        unset="none",
    )
    token_file: Path | None = _option(
        _SECURITY,
        _file,
        "file",
        "file of accepted bearer tokens, one per line: TOKEN [PERMISSION,...], with the "
        "permissions infer, control, shared-memory; calls without one are rejected",
        None,
        unset="none",
    )
    plaintext_tokens: bool = _option(
        _SECURITY,
        _on_or_off,
        "on|off",
        "accept tokens from other machines without TLS, where another layer encrypts",
        False,
    )

    log_level: str = _option(
        _LOGGING, _level, "debug|info|warning|error", "least severe level that is logged", "info"
    )
    access_log: int | None = _option(
        _LOGGING,
        option_values.share(off=None, on=1),
        "off|on|1/N",
        "log a line for each request and call; 1/N: for one of N requests that succeed",
        None,
        unset="off",
    )
    slow_ms: int | None = _option(
        _LOGGING,
        _count,
        "ms",
        "log a warning for each request that takes longer",
        None,
        unset="off",
    )

    trace_otlp: str | None = _option(
        _TRACING,
        option_values.collector,
        "HOST:PORT",
        "send traces to this OTLP collector: plaintext, or with TLS if it begins with https://",
        None,
        unset="off",
    )
    trace_rate: int = _option(
        _TRACING,
        option_values.share(**{"0": 0, "1": 1}),
        "0|1|1/N",
        "share of requests that are traced; 0: only those whose client asks for it",
        0,
    )

    @property
    def quick_receive_s(self) -> float:
        """Time limit for a message that is so small that it arrives with its call."""
        return min(self.receive_s or _QUICK_RECEIVE_S, _QUICK_RECEIVE_S)

    @property
    def local_only(self) -> bool:
        """Whether the address can be reached from this machine only."""
        return listening.local(self.address)
