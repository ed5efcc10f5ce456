"""The server's options, each declared once: flag, environment variable, default, help."""

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

MIB = 2**20
_ENVIRONMENT_PREFIX = "ARGMAX_SERVER_"


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def _not_negative(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError
    return value


def _switch(text: str) -> bool | None:
    return {"auto": None, "on": True, "off": False}[text]


def _level(text: str) -> str:
    if text not in ("debug", "info", "warning", "error"):
        raise ValueError
    return text


def cores() -> int:
    """Number of cores this process may run on."""
    return len(os.sched_getaffinity(0))


def _option(parse: Callable[[str], Any], wanted: str, text: str, default: Any = MISSING) -> Any:
    metadata = {"parse": parse, "wanted": wanted, "help": text}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything that can be set; read from argv and the environment in one place only."""

    models: Path = _option(Path, "folder", "model repository: NAME/VERSION/model.onnx below it")
    address: str = _option(
        str,
        "address",
        "where to listen: HOST:PORT (port 0: any free one) or unix:/path",
        "127.0.0.1:8001",
    )
    threads: int = _option(_positive, "count", "threads that one model execution uses", cores)
    max_batch_rows: int = _option(
        _positive, "rows", "most rows that one request may hold, also the most in one batch", 1024
    )
    group_rows: int = _option(
        _positive, "rows", "most rows gathered from several requests for one execution", 32
    )
    queue_delay_us: int = _option(
        _not_negative, "us", "how long a request may wait for others to share its batch", 0
    )
    max_message_bytes: int = _option(
        _positive, "bytes", "largest message taken; larger ones get RESOURCE_EXHAUSTED", 128 * MIB
    )
    max_inflight_bytes: int = _option(
        _positive, "bytes", "most bytes of requests held at once, over all clients", 256 * MIB
    )
    max_stream_bytes: int = _option(
        _positive, "bytes", "most bytes read ahead on one stream", 64 * MIB
    )
    max_streams: int = _option(_positive, "count", "most streams open at once", 100)
    workers: int = _option(_positive, "count", "most unary requests taken at once", 64)
    stream_idle_s: float = _option(
        _seconds, "seconds", "a stream that sends nothing this long is ended (0: never)", 600.0
    )
    grace_s: float = _option(
        _seconds, "seconds", "how long requests may take to finish after SIGTERM", 30.0
    )
    reflection: bool | None = _option(
        _switch, "auto|on|off", "gRPC reflection; auto: on for loopback and Unix sockets", None
    )
    log_level: str = _option(
        _level, "debug|info|warning|error", "least severe log line that is written", "info"
    )

    @property
    def local_only(self) -> bool:
        """Whether the address can be reached from this machine only."""
        host = self.address.rsplit(":", 1)[0].strip("[]")
        return (
            self.address.startswith("unix:")
            or host in ("localhost", "::1")
            or host.startswith("127.")
        )


def parse(argv: Sequence[str] | None, environment: Mapping[str, str]) -> Config:
    """Config from flags, else environment variables, else defaults.

    Exits with status 2 with one line on stderr when a value is not what was wanted.
    """
    parser = argparse.ArgumentParser(
        prog="argmax-server",
        description="Serve ONNX models over gRPC by the Open Inference Protocol.",
        epilog=f"Each option can also be set as {_ENVIRONMENT_PREFIX}NAME in the environment.",
    )
    # Usage errors are one line; --help has the rest.
    parser.format_usage = lambda: ""  # type: ignore[method-assign]
    for option in fields(Config):
        shown = option.default_factory() if callable(option.default_factory) else option.default
        if shown is None:
            shown = "auto"
        suffix = "" if shown is MISSING else f" (default: {shown})"
        parser.add_argument(
            _flag(option.name),
            metavar=option.metadata["wanted"],
            help=option.metadata["help"] + suffix,
        )
    given = vars(parser.parse_args(argv))
    values: dict[str, Any] = {}
    for option in fields(Config):
        variable = _ENVIRONMENT_PREFIX + option.name.upper()
        text, source = given[option.name], _flag(option.name)
        if text is None and variable in environment:
            text, source = environment[variable], variable
        if text is None:
            if option.default is MISSING and option.default_factory is MISSING:
                parser.error(f"{source} is needed: {option.metadata['help']}")
            continue
        try:
            values[option.name] = option.metadata["parse"](text)
        except (ValueError, KeyError):
            parser.error(f"{source} got {text!r}; wanted {option.metadata['wanted']}")
    return Config(**values)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
