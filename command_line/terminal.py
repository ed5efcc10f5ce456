"""The consoles of a command: results to stdout, everything else to stderr."""

import os
from contextlib import AbstractContextManager
from typing import Any, Self

from rich.console import Console

# The width for a file or another program, which needs no line breaks.
UNLIMITED = 10_000


def results() -> Console:
    """Console for tables and paths, as wide as its terminal; a pipe or a file gets full lines."""
    return _console(stderr=False)


def progress() -> Console:
    """Console for progress, and for all other texts that are not results."""
    return _console(stderr=True)


def is_live(console: Console) -> bool:
    """Whether lines can be overwritten."""
    return console.is_terminal and not console.is_dumb_terminal


class Shown:
    """Base of what rich shows for as long as a block lasts."""

    def __init__(self, shown: AbstractContextManager[Any]) -> None:
        self._shown = shown

    def __enter__(self) -> Self:
        self._shown.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._shown.__exit__(*error)


def _console(*, stderr: bool) -> Console:
    # https://no-color.org; rich would still print bold text.
    plain = bool(os.environ.get("NO_COLOR"))
    console = Console(stderr=stderr, highlight=False, color_system=None if plain else "auto")
    # COLUMNS does not describe a pipe: a parent that loads readline sets it for its children.
    if not console.file.isatty():
        console.width = UNLIMITED
    return console
