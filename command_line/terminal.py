"""Where a command prints: results to stdout, all else to stderr."""

import os
import sys

from rich.console import Console

# Wide enough for most tables, where nobody says how wide it is.
_PLAIN_WIDTH = 120


def results(plain_width: int = _PLAIN_WIDTH) -> Console:
    """Console for tables and paths; `plain_width` characters wide where there is no terminal."""
    return _console(stderr=False, plain_width=plain_width)


def progress() -> Console:
    """Console for what is under way, and for what else is no result."""
    return _console(stderr=True, plain_width=_PLAIN_WIDTH)


def is_live(console: Console) -> bool:
    """Whether lines can be drawn over."""
    return console.is_terminal and not console.is_dumb_terminal


def _console(*, stderr: bool, plain_width: int) -> Console:
    # https://no-color.org; rich would still print bold text.
    plain = bool(os.environ.get("NO_COLOR"))
    console = Console(stderr=stderr, highlight=False, color_system=None if plain else "auto")
    if not console.is_terminal and not os.environ.get("COLUMNS", "").isdigit():
        console.width = plain_width
    return console


def complain(program: str, text: str) -> None:
    """One line on stderr: the program, then what is wrong."""
    print(f"{program}: {' '.join(text.split())}", file=sys.stderr)
