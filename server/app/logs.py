"""Write log lines as JSON objects on stderr, one per line."""

import functools
import json
import logging
import os
import sys
import threading
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import Any

from pythonjsonlogger.json import JsonFormatter

from server.app.log_writer import LogWriter

# gRPC's core logs errors to stderr as plain text, although it also raises them. It reads this
# variable when grpc is imported, so this module must be imported first.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")


SEVERITIES = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)
# Texts quote what clients send.
_LONGEST_TEXT = 2000
# Of a traceback, which ends with its error.
_LONGEST_TRACEBACK = 16_000
_TRACEBACKS = frozenset(("exc_info", "stack_info"))
_LOGGER = "server.log"


class _Unwritten(logging.Filter):
    """Drop lines of severities that are off while a less severe one is on."""

    severities: AbstractSet[int] = frozenset()

    def filter(self, record: logging.LogRecord) -> bool:
        known = [severity for severity in SEVERITIES if severity <= record.levelno]
        return max(known, default=logging.DEBUG) not in self.severities


_unwritten = _Unwritten()


class _Formatter(JsonFormatter):
    """One line of printable ASCII, whatever clients put into its texts, of a bounded length."""

    # The name is the standard library's.
    def formatTime(  # noqa: N802
        self, record: logging.LogRecord, datefmt: str | None = None
    ) -> str:
        """Return when the record was made."""
        del datefmt
        return time_text(record.created)

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        """Bound the texts of a line."""
        return {
            name: _bounded_traceback(value) if name in _TRACEBACKS else _bounded(value)
            for name, value in log_data.items()
        }

    def jsonify_log_record(self, log_data: dict[str, Any]) -> str:
        """Return the line."""
        return line(log_data).removesuffix("\n")


class _Handler(logging.Handler):
    """Gives lines to the writer."""

    def __init__(self, to: LogWriter) -> None:
        super().__init__()
        self._to = to

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, or let the writer's thread do it."""
        try:
            self._to.write(f"{self.format(record)}\n")
        except Exception:
            # The standard library would write of it to stderr, and wait for its reader.
            self._to.drop()


def time_text(seconds: float) -> str:
    """ISO 8601 in UTC to the millisecond, so that lines of several machines can be sorted."""
    when = datetime.fromtimestamp(seconds, UTC)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def line(fields: dict[str, Any]) -> str:
    """A JSON object on a line of printable ASCII."""
    # Of the characters that control a terminal, JSON leaves this one as it is.
    return json.dumps(fields, default=str).replace("\x7f", "\\u007f") + "\n"


def bounded(text: str, longest: int) -> str:
    """The text, or its beginning if it is longer."""
    return text if len(text) <= longest else f"{text[:longest]}..."


@functools.cache
def writer() -> LogWriter:
    """The one writer of stderr in this process."""
    return LogWriter(2, _warning)


def set_up(level: str) -> None:
    """Log lines of at least this level, of every logger, to stderr.

    So are Python's warnings and errors that end a thread, which would be lines of plain text.
    """
    handler = _Handler(writer())
    handler.setFormatter(_formatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    threading.excepthook = _thread_failed
    sys.unraisablehook = _unraisable


def written() -> frozenset[int]:
    """The SEVERITIES that are logged."""
    root = logging.getLogger()
    return frozenset(
        severity
        for severity in SEVERITIES
        if root.isEnabledFor(severity) and severity not in _unwritten.severities
    )


def write_only(severities: AbstractSet[int]) -> None:
    """Log only these of SEVERITIES from now on."""
    root = logging.getLogger()
    _unwritten.severities = frozenset(SEVERITIES) - severities
    for handler in root.handlers:
        handler.addFilter(_unwritten)
    root.setLevel(min(severities, default=logging.CRITICAL + 1))


def _formatter() -> _Formatter:
    return _Formatter(
        "{asctime}{levelname}{name}{message}",
        style="{",
        rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
    )


def _warning(text: str, fields: dict[str, object]) -> str:
    record = logging.LogRecord(_LOGGER, logging.WARNING, "", 0, text, None, None)
    record.__dict__.update(fields)
    return _formatter().format(record) + "\n"


def _bounded(value: Any) -> Any:
    if isinstance(value, str):
        return bounded(value, _LONGEST_TEXT)
    if isinstance(value, dict):
        return {_bounded(str(name)): _bounded(each) for name, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_bounded(each) for each in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return bounded(str(value), _LONGEST_TEXT)


def _bounded_traceback(text: str) -> str:
    if not isinstance(text, str) or len(text) <= _LONGEST_TRACEBACK:
        return text
    half = _LONGEST_TRACEBACK // 2
    return f"{text[:half]}\n...\n{text[-half:]}"


def _thread_failed(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is SystemExit or args.exc_value is None:
        return
    name = "" if args.thread is None else args.thread.name
    logging.getLogger(_LOGGER).error(
        "a thread failed", exc_info=args.exc_value, extra={"thread_name": name}
    )


def _unraisable(unraisable: Any) -> None:
    logging.getLogger(_LOGGER).error(
        "an error was ignored: %s", unraisable.err_msg, exc_info=unraisable.exc_value
    )
