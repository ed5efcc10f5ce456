"""Decide how wide the output may be."""

import os
from typing import Any

from rich.console import Console

# A file or another program has no edge at which a line would be broken.
UNLIMITED = 10_000


def new_console(**options: Any) -> Console:
    """Console as wide as its terminal; without one, as wide as COLUMNS says, or unlimited.

    `options` are those of `rich.console.Console`.
    """
    made = Console(**options)
    if made.file.isatty() or "width" in options or os.environ.get("COLUMNS", "").isdecimal():
        return made
    made.width = UNLIMITED
    return made
