"""Show a soak's record as a table."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from command_line.table import Column, Row, Table

_SHOWN_FAILURES = 5
_COLUMNS = (
    Column("part", words=True),
    Column("wanted"),
    Column("done"),
    Column("failed"),
    Column("rate below (95%)"),
    Column("s"),
    Column("counts", words=True),
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
    return Table(
        _COLUMNS,
        [[_row(part) for part in record["parts"]]],
        title=f"Soak of {record['minutes']:g} minutes",
    )


def _row(part: Mapping[str, Any]) -> Row:
    return (
        part["name"],
        f"{part['wanted']:,}",
        f"{part['done']:,}",
        f"{part['failed']:,}",
        "-" if part["rate_below"] is None else f"{part['rate_below']:.1e}",
        f"{part['seconds']:.0f}",
        part["counts"],
    )
