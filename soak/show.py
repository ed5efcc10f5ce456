"""Show a soak's record as a table."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

_SHOWN_FAILURES = 5


def show(console: Console, record: Mapping[str, Any]) -> None:
    """Print how far each part came and what that proves, then what failed."""
    table = Table(title=f"Soak of {record['minutes']:g} minutes")
    for heading in ("part", "wanted", "done", "failed", "rate below (95%)", "s", "counts"):
        table.add_column(heading, justify="left" if heading in ("part", "counts") else "right")
    for part in record["parts"]:
        table.add_row(
            part["name"],
            f"{part['wanted']:,}",
            f"{part['done']:,}",
            f"{part['failed']:,}",
            "-" if part["rate_below"] is None else f"{part['rate_below']:.1e}",
            f"{part['seconds']:.0f}",
            part["counts"],
        )
    console.print(table)
    for part in record["parts"]:
        facts = ", ".join(f"{name} {value}" for name, value in part["facts"].items())
        if facts:
            console.print(f"{part['name']}: {facts}", soft_wrap=True, markup=False)
        for failure in part["failures"][:_SHOWN_FAILURES]:
            told = f"{part['name']}: FAILED {failure['what']}: {failure['came']}"
            console.print(told, soft_wrap=True, markup=False)
