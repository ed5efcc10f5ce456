"""Declare an option of the server as a field of a dataclass."""

from collections.abc import Callable
from dataclasses import MISSING, field
from typing import Any

# A group of options in --help.
EXECUTION = "execution"


def option(
    title: str,
    parse: Callable[[str], Any],
    unit: str,
    text: str,
    default: Any = MISSING,
    *,
    unset: str = "auto",
) -> Any:
    """A field, in the group `title` of --help.

    `parse` raises ValueError with the expected form. An option that is a tuple or
    a dict may be repeated, or given once with commas. `unset` is the text that --help shows for a
    default of None, or an empty one.
    """
    metadata = {
        "group": title,
        "parse": parse,
        "unit": unit,
        "help": text,
        "many": default in ((), dict),
        "unset": unset,
    }
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)
