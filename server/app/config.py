"""The server's options, each declared once: flag, environment variable, default, help."""

import argparse
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from command_line.parser import Parser, group, suggestion
from server.app import listening, option_values
from server.onnx import execution_provider
from server.onnx.execution_provider import ExecutionProvider

MIB = 2**20
# How requests with NaN or infinite values are handled.
PASS, REJECT = "pass", "reject"
GRPCIO, NATIVE = "grpcio", "native"
_QUICK_RECEIVE_S = 2.0
_PREFIX = "ARGMAX_"
_ENVIRONMENT_PREFIX = f"{_PREFIX}SERVER_"
_KUBERNETES = re.compile(r"_SERVICE_(HOST|PORT(_.*)?)$|_PORT(_\d+_(TCP|UDP|SCTP)(_.*)?)?$")


_folder, _file = option_values.path("a folder"), option_values.path("a file")
_seconds = option_values.duration()
_switch = option_values.one_of(auto=None, on=True, off=False)
_on_or_off = option_values.one_of(on=True, off=False)
_level = option_values.one_of(debug="debug", info="info", warning="warning", error="error")
# A switch without a value.
_BARE_IS_ON: Mapping[str, Any] = {"nargs": "?", "const": "on"}
# Groups of options in --help, in this order.
_MODELS, _NETWORK, _LIMITS, _BATCHING = "models", "network", "limits", "batching"
_EXECUTION, _SECURITY = "execution", "security"
_LOGGING, _TRACING = "logging", "tracing"
_count = option_values.integer(1)
_threads = option_values.integer(1, 100_000)
_bytes = option_values.integer(1, 2**63 - 1)


def cores() -> int:
    """Number of cores this process may run on."""
    return len(os.sched_getaffinity(0))


def _option(
    title: str,
    parse: Callable[[str], Any],
    unit: str,
    text: str,
    default: Any = MISSING,
    *,
    unset: str = "auto",
) -> Any:
    """A field of Config, in the group `title` of --help.

    `parse` raises ValueError with the expected form. An option that is a tuple may be repeated, or
    given once with commas. `unset` is the text that --help shows for a default of None.
    """
    metadata = {
        "group": title,
        "parse": parse,
        "unit": unit,
        "help": text,
        "many": default == (),
        "unset": unset,
    }
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
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
        _LIMITS, _bytes, "bytes", "most bytes of requests in memory, over all clients", 256 * MIB
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

    threads: int = _option(_EXECUTION, _threads, "count", "threads of one model execution", cores)
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


def parse(
    argv: Sequence[str] | None,
    environment: Mapping[str, str],
    list_ep: Callable[[], str] = str,
) -> Config:
    """Config from flags, else environment variables, else defaults.

    Exits with 2 and one line on stderr for a bad value, with 0 after printing the text of `list_ep`
    for --list-ep.
    """

    class ListProviders(argparse.Action):
        def __call__(self, *_: Any) -> None:
            print(list_ep())
            parser.exit()

    parser = Parser(
        prog="argmax-server",
        description="Serve ONNX models over gRPC by the Open Inference Protocol.",
        epilog=f"Each option can also be set as {_ENVIRONMENT_PREFIX}NAME in the environment. "
        "Exit codes: 0: drained after SIGTERM or SIGINT. 2: the server could not start.",
    )
    for option in fields(Config):
        shown = option.default_factory() if callable(option.default_factory) else option.default
        if shown in (None, ()):
            shown = option.metadata["unset"] if shown is None else "none"
        elif isinstance(shown, bool):
            shown = "on" if shown else "off"
        suffix = "" if shown is MISSING else f" (default: {shown})"
        group(parser, option.metadata["group"]).add_argument(
            _flag(option.name),
            action="append",
            metavar=option.metadata["unit"],
            **(_BARE_IS_ON if option.metadata["parse"] is _on_or_off else {}),
            help=option.metadata["help"] + suffix,
        )
    group(parser, _EXECUTION).add_argument(
        "--list-ep",
        action=ListProviders,
        nargs=0,
        default=argparse.SUPPRESS,
        help="show execution providers, their devices and options, and exit",
    )
    arguments = vars(parser.parse_args(argv))
    values: dict[str, Any] = {}
    for option in fields(Config):
        variable = _variable(option.name)
        texts, source = arguments[option.name], _flag(option.name)
        if texts is None and variable in environment:
            texts, source = [environment[variable]], variable
        if texts is None:
            if option.default is MISSING and option.default_factory is MISSING:
                parser.error(f"{source} is required: {option.metadata['help']}")
            continue
        text = ",".join(texts) if option.metadata["many"] else texts[-1]
        try:
            values[option.name] = option.metadata["parse"](text)
        except ValueError as error:
            parser.error(f"{source} got {text!r}, expected {error}")
    return Config(**values)


def unknown_variables(environment: Mapping[str, str]) -> Iterator[str]:
    """Warn of each ARGMAX_* variable that sets no option; it may be misspelt.

    Variables that Kubernetes sets for a service called argmax-* are not options.
    """
    known = [_variable(option.name) for option in fields(Config)]
    for name in sorted(environment):
        if name.startswith(_PREFIX) and name not in known and not _KUBERNETES.search(name):
            yield f"the environment variable {name} sets no option{suggestion(name, known)}"


def _variable(name: str) -> str:
    return _ENVIRONMENT_PREFIX + name.upper()


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
