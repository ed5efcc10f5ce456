"""Write log lines as JSON objects on stderr, one per line."""

import logging
import os
import sys
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime

from pythonjsonlogger.json import JsonFormatter

# gRPC's core logs errors to stderr as plain text, although it also raises them. It reads this
# variable when grpc is imported, so this module must be imported first.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")


SEVERITIES = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)


class _Unwritten(logging.Filter):
    """Drop lines of severities that are off while a less severe one is on."""

    severities: AbstractSet[int] = frozenset()

    def filter(self, record: logging.LogRecord) -> bool:
        known = [severity for severity in SEVERITIES if severity <= record.levelno]
        return max(known, default=logging.DEBUG) not in self.severities


_unwritten = _Unwritten()


class _Formatter(JsonFormatter):
    """Times in ISO 8601 with their zone, so that lines of several machines can be sorted."""

    # The name is the standard library's.
    def formatTime(  # noqa: N802
        self, record: logging.LogRecord, datefmt: str | None = None
    ) -> str:
        """Return when the record was made, in UTC to the millisecond."""
        del datefmt
        when = datetime.fromtimestamp(record.created, UTC)
        return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def set_up(level: str) -> None:
    """Log lines of at least this level, of every logger, to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        _Formatter(
            "{asctime}{levelname}{name}{message}",
            style="{",
            rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
        )
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


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
