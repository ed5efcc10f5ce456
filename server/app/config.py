"""The server's options, each declared once: flag, environment variable, default, help."""

import argparse
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from command_line import paths
from command_line.parser import Parser, suggestion
from server.onnx import execution_provider
from server.onnx.execution_provider import ExecutionProvider

MIB = 2**20
# What becomes of rows that are not finite.
PASS, REJECT = "pass", "reject"
_PREFIX = "ARGMAX_"
_ENVIRONMENT_PREFIX = f"{_PREFIX}SERVER_"
_KUBERNETES = re.compile(r"_SERVICE_(HOST|PORT(_.*)?)$|_PORT(_\d+_(TCP|UDP|SCTP)(_.*)?)?$")
_INT32_MAX = 2**31 - 1  # gRPC and ONNX Runtime count no further, nor do waits


def _integer(least: int, most: int = _INT32_MAX) -> Callable[[str], int]:
    def parse(text: str) -> int:
        plain = text.isascii() and text.isdigit() and len(text) < 20
        if not (plain and least <= int(text) <= most):
            raise ValueError(f"an integer from {least} to {most}")
        return int(text)

    return parse


def _duration(least: float = 0) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not least <= value <= _INT32_MAX:
            raise ValueError(f"seconds from {least} to {_INT32_MAX}")
        return value

    return parse


def _one_of(**choices: Any) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        if text not in choices:
            raise ValueError(f"one of {', '.join(choices)}")
        return choices[text]

    return parse


def _path(what: str) -> Callable[[str], Path]:
    def parse(text: str) -> Path:
        if not text:
            raise ValueError(what)
        hint = paths.uri_hint(text)
        if hint is not None:
            raise ValueError(hint)
        return Path(text)

    return parse


def _prefix(text: str) -> str:
    if not re.fullmatch("[A-Za-z0-9_.-]{1,200}", text):
        raise ValueError("up to 200 letters, digits, '_', '.' and '-'")
    return text


def _auto_or(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    def parse_or_none(text: str) -> Any:
        if text == "auto":
            return None
        try:
            return parse(text)
        except ValueError as error:
            raise ValueError(f"auto or {error}") from None

    return parse_or_none


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if not all(names):
        raise ValueError("names with commas between them")
    return names


_folder, _file = _path("a folder"), _path("a file")
_seconds = _duration()
_switch = _one_of(auto=None, on=True, off=False)
_on_or_off = _one_of(on=True, off=False)
_level = _one_of(debug="debug", info="info", warning="warning", error="error")
# A switch without a value.
_BARE_IS_ON: Mapping[str, Any] = {"nargs": "?", "const": "on"}
_count = _integer(1)
_threads = _integer(1, 100_000)
_bytes = _integer(1, 2**63 - 1)


def cores() -> int:
    """Number of cores this process may run on."""
    return len(os.sched_getaffinity(0))


def _option(
    parse: Callable[[str], Any],
    unit: str,
    text: str,
    default: Any = MISSING,
    *,
    unset: str = "auto",
) -> Any:
    """A field of Config; `parse` raises ValueError that says what it wanted.

    One that is a tuple may be given several times, or once with commas. `unset` is how a default
    of None is shown.
    """
    metadata = {
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

    models: Path = _option(_folder, "folder", "model repository: NAME/VERSION/model.onnx below it")
    address: str = _option(
        str,
        "address",
        "where to listen: HOST:PORT (port 0: any free one) or unix:/path",
        "127.0.0.1:8001",
    )
    transport: str = _option(
        _one_of(grpcio="grpcio", native="native"),
        "grpcio|native",
        "gRPC by its own library, or by this project's I/O thread, which copies less",
        "grpcio",
    )
    threads: int = _option(_threads, "count", "threads that one model execution uses", cores)
    ep: ExecutionProvider = _option(
        execution_provider.parse,
        "NAME[:key=value,...]",
        "execution provider: cpu, cuda, tensorrt, openvino, or ONNX Runtime's own name",
        ExecutionProvider,
    )
    max_batch_rows: int = _option(
        _count, "rows", "most rows that one request may hold, also the most in one batch", 1024
    )
    group_rows: int | None = _option(
        _auto_or(_count),
        "rows",
        "most rows gathered from several requests for one execution; auto: measured at start",
        None,
    )
    deterministic: bool = _option(
        _on_or_off,
        "on|off",
        "run every batch padded to one size, so that no bit of a row depends on its company",
        False,
    )
    queue_delay_us: int = _option(
        _integer(0), "us", "how long a request may wait for others to share its batch", 0
    )
    non_finite: str = _option(
        _one_of(**{REJECT: REJECT, PASS: PASS}),
        f"{PASS}|{REJECT}",
        "rows with NaN or infinite values: computed like any other, or their request is refused",
        PASS,
    )
    max_message_bytes: int = _option(
        _count, "bytes", "largest message taken; larger ones get RESOURCE_EXHAUSTED", 128 * MIB
    )
    max_inflight_bytes: int = _option(
        _bytes, "bytes", "most bytes of requests held at once, over all clients", 256 * MIB
    )
    max_stream_bytes: int = _option(
        _bytes, "bytes", "most bytes read ahead on one stream", 48 * MIB
    )
    max_streams: int = _option(_threads, "count", "most streams open at once", 100)
    workers: int = _option(_threads, "count", "most unary requests taken at once", 64)
    max_waiting: int = _option(
        _integer(0),
        "count",
        "most unary requests that wait for one of the workers; more get RESOURCE_EXHAUSTED",
        256,
    )
    max_connections: int = _option(
        _count, "count", "most connections open at once; more are closed", 512
    )
    receive_s: float = _option(
        _seconds,
        "seconds",
        "a unary call whose message takes longer to arrive is cancelled (0: never)",
        60.0,
    )
    silent_peer_s: float = _option(
        _duration(0.1),
        "seconds",
        "a connection whose peer does not answer this long, or has not said hello, is closed",
        9.0,
    )
    stream_idle_s: float = _option(
        _seconds, "seconds", "a stream that sends nothing this long is ended (0: never)", 600.0
    )
    grace_s: float = _option(
        _seconds, "seconds", "how long requests may take to finish after SIGTERM", 30.0
    )
    reflection: bool | None = _option(
        _switch, "auto|on|off", "gRPC reflection; auto: on for loopback and Unix sockets", None
    )
    shared_memory: bool | None = _option(
        _switch,
        "auto|on|off",
        "tensors in shared memory; auto: on for loopback and Unix sockets",
        None,
    )
    shared_memory_prefix: str | None = _option(
        _prefix, "text", "what the key of each region must start with", None, unset="none"
    )
    tls_cert: Path | None = _option(
        _file, "PEM", "certificate chain; with it, only TLS is spoken", None, unset="none"
    )
    tls_key: Path | None = _option(
        _file, "PEM", "key of the certificate, without a passphrase", None, unset="none"
    )
    tls_client_ca: Path | None = _option(
        _file,
        "PEM",
        "certificates that must have signed those of clients; without it, clients need none",
        None,
        unset="none",
    )
    token_file: Path | None = _option(
        _file,
        "file",
        "lines TOKEN [infer,control,shared-memory], one of which calls must carry",
        None,
        unset="none",
    )
    plaintext_tokens: bool = _option(
        _on_or_off,
        "on|off",
        "take tokens from other machines without TLS, because something else encrypts",
        False,
    )
    model_control: str = _option(
        _one_of(none="none", poll="poll", explicit="explicit"),
        "none|poll|explicit",
        "who loads models: all at start, whenever the folder changes, or requests",
        "none",
    )
    load_model: tuple[str, ...] = _option(
        _names,
        "NAME,NAME",
        "models that explicit control starts with, '*' for all; may be repeated",
        (),
    )
    poll_s: float = _option(
        _duration(0.01), "seconds", "how long to wait before the folder is polled again", 15.0
    )
    validation: bool = _option(
        _on_or_off, "on|off", "load each model in a process of its own first, which may crash", True
    )
    validation_s: float = _option(
        _duration(0.01), "seconds", "how long that process may take", 120.0
    )
    validation_bytes: int = _option(
        _bytes, "bytes", "how much memory that process may have", 16 * 1024 * MIB
    )
    log_level: str = _option(
        _level, "debug|info|warning|error", "least severe log line that is written", "info"
    )

    @property
    def local_only(self) -> bool:
        """Whether the address can be reached from this machine only."""
        host = self.address.rsplit(":", 1)[0].strip("[]")
        if self.address.startswith("unix:") or host == "localhost":
            return True
        try:
            return ip_address(host).is_loopback
        except ValueError:
            return False


def parse(
    argv: Sequence[str] | None,
    environment: Mapping[str, str],
    list_ep: Callable[[], str] = str,
) -> Config:
    """Config from flags, else environment variables, else defaults.

    Exits with status 2 with one line on stderr when a value is not what was wanted, with 0 after
    printing what `list_ep` gives where that is asked for.
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
        parser.add_argument(
            _flag(option.name),
            action="append",
            metavar=option.metadata["unit"],
            **(_BARE_IS_ON if option.metadata["parse"] is _on_or_off else {}),
            help=option.metadata["help"] + suffix,
        )
    parser.add_argument(
        "--list-ep",
        action=ListProviders,
        nargs=0,
        default=argparse.SUPPRESS,
        help="show execution providers, their devices and options, and exit",
    )
    given = vars(parser.parse_args(argv))
    values: dict[str, Any] = {}
    for option in fields(Config):
        variable = _variable(option.name)
        texts, source = given[option.name], _flag(option.name)
        if texts is None and variable in environment:
            texts, source = [environment[variable]], variable
        if texts is None:
            if option.default is MISSING and option.default_factory is MISSING:
                parser.error(f"{source} is needed: {option.metadata['help']}")
            continue
        text = ",".join(texts) if option.metadata["many"] else texts[-1]
        try:
            values[option.name] = option.metadata["parse"](text)
        except ValueError as error:
            parser.error(f"{source} got {text!r}; wanted {error}")
    return Config(**values)


def unknown_variables(environment: Mapping[str, str]) -> Iterator[str]:
    """Warn of each ARGMAX_* variable that sets no option; it may be misspelt.

    What Kubernetes sets for a service called argmax-* is no attempt to set an option.
    """
    known = [_variable(option.name) for option in fields(Config)]
    for name in sorted(environment):
        if name.startswith(_PREFIX) and name not in known and not _KUBERNETES.search(name):
            yield f"the environment variable {name} sets no option{suggestion(name, known)}"


def _variable(name: str) -> str:
    return _ENVIRONMENT_PREFIX + name.upper()


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
