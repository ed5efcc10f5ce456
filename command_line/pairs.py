"""Write names with their values, one per line, folded between words."""

import textwrap
from collections.abc import Sequence

_GAP = 2
_INDENT = 4


def pairs(
    named: Sequence[tuple[str, str]], width: int, *, name_width: int | None = None, start: str = ""
) -> list[str]:
    """Lines of at most `width` cells, each name followed by its value; `start` precedes names.

    A value that is too long continues below itself, or below its name if that leaves more room.
    A single word that is wider than the line stays whole.
    """
    longest = max((len(name) for name, _ in named), default=0)
    column = len(start) + (longest + _GAP if name_width is None else name_width)
    lines: list[str] = []
    for name, value in named:
        head = f"{start}{name}".ljust(column)
        if not value:
            lines.append(head.rstrip())
        elif len(head) + max(map(len, value.split())) <= width:
            lines += _folded(value, width, head, " " * column)
        else:
            lines += [head.rstrip()] if name else []
            indent = start + " " * _INDENT
            lines += _folded(value, width, indent, indent)
    return lines


def _folded(text: str, width: int, first: str, later: str) -> list[str]:
    if len(first) + len(text) <= width:
        # Columns within a value keep their positions while there is room.
        return [first + text]
    return textwrap.wrap(
        text,
        max(width, len(first) + 1, len(later) + 1),
        initial_indent=first,
        subsequent_indent=later,
        break_long_words=False,
        break_on_hyphens=False,
    )
