"""Decide how wide the output may be."""

from typing import Any

from rich.console import Console

# A file or another program has no edge at which a line would be broken.
UNLIMITED = 10_000


def new_console(**options: Any) -> Console:
    """Console as wide as its terminal; a file or a pipe gets everything, however wide.

    `options` are those of `rich.console.Console`.
    """
    made = Console(**options)
    # COLUMNS says nothing of a pipe: whatever loads readline hands it to its children.
    if "width" not in options and not made.file.isatty():
        made.width = UNLIMITED
    return made
