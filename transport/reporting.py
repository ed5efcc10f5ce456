"""Log failures in threads that must go on, whatever has failed."""

import contextlib
import logging


def report(log: logging.Logger, text: str, *args: object) -> None:
    """Log the exception that is being handled; nothing where that fails too, as without memory."""
    with contextlib.suppress(Exception):
        log.exception(text, *args)
