"""Show a soak's record as a table."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from command_line.table import Table
from measure.presentation.columns import Column, in_terminal

_SHOWN_FAILURES = 5
_COLUMNS: tuple[Column[Mapping[str, Any]], ...] = (
    Column("part", lambda part: part["name"], words=True),
    Column("wanted", lambda part: f"{part['wanted']:,}"),
    Column("done", lambda part: f"{part['done']:,}"),
    Column("failed", lambda part: f"{part['failed']:,}"),
    Column(
        "rate below (95%)",
        lambda part: "-" if part["rate_below"] is None else f"{part['rate_below']:.1e}",
    ),
    Column("s", lambda part: f"{part['seconds']:.0f}"),
    Column("counts", lambda part: part["counts"], words=True),
)


def show(console: Console, record: Mapping[str, Any]) -> None:
    """Print the count and the bound of each part, then the failures."""
    console.print(table(record))
    for part in record["parts"]:
        facts = ", ".join(f"{name} {value}" for name, value in part["facts"].items())
        if facts:
            console.print(f"{part['name']}: {facts}", soft_wrap=True, markup=False)
        for failure in part["failures"][:_SHOWN_FAILURES]:
            line = f"{part['name']}: FAILED {failure['what']}: {failure['came']}"
            console.print(line, soft_wrap=True, markup=False)


def table(record: Mapping[str, Any]) -> Table:
    """A row for each part."""
    return in_terminal(_COLUMNS, [record["parts"]], title=f"Soak of {record['minutes']:g} minutes")
