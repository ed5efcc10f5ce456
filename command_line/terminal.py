"""Where a command prints: results to stdout, all else to stderr."""

import os

from rich.console import Console

# A file or another program has no edge at which a line would be broken.
UNLIMITED = 10_000


def results() -> Console:
    """Console for tables and paths, as wide as its terminal; a pipe or a file gets everything."""
    return _console(stderr=False)


def progress() -> Console:
    """Console for what is under way, and for what else is no result."""
    return _console(stderr=True)


def is_live(console: Console) -> bool:
    """Whether lines can be drawn over."""
    return console.is_terminal and not console.is_dumb_terminal


def _console(*, stderr: bool) -> Console:
    # https://no-color.org; rich would still print bold text.
    plain = bool(os.environ.get("NO_COLOR"))
    console = Console(stderr=stderr, highlight=False, color_system=None if plain else "auto")
    # COLUMNS says nothing of a pipe: whatever loads readline hands it to its children.
    if not console.file.isatty():
        console.width = UNLIMITED
    return console
