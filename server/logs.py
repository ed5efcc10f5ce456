"""Write log lines as JSON objects on stderr, one a line."""

import logging
import os
import sys

from pythonjsonlogger.json import JsonFormatter

# gRPC's core writes lines of its own to stderr, no JSON, of errors that come as exceptions too. It
# reads this when grpc is imported, so this module comes first.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def set_up(level: str) -> None:
    """Send every logger's lines of at least this level to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonFormatter(
            "{asctime}{levelname}{name}{message}",
            style="{",
            rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
        )
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
