"""Show roofs, and the points below them, in the terminal."""

from collections.abc import Mapping, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from client.limits.placing import Placed
from client.limits.roofs import WHAT, Roof
from client.table import significant

HOW_BINDING = (
    "binding: the roof that alone allows the fewest rows a second; share: how much of that is "
    "reached. Small batches wait more than they work, so no roof is near them."
)


def render(
    roofs: Sequence[Roof], skipped: Mapping[str, str], placed: Sequence[Placed]
) -> list[Table | Text]:
    """The roofs, then the points with what binds them."""
    parts: list[Table | Text] = [_roofs(roofs)]
    parts += [Text(f"{name}: not measured: {why}") for name, why in skipped.items()]
    if placed:
        parts += [Text(), _points(placed), Text(HOW_BINDING)]
    return parts


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for number, heading in enumerate(columns):
        words = number == 0 or heading in {"what", "binding"}
        table.add_column(heading, justify="left" if words else "right", no_wrap=heading != "what")
    return table


def _roofs(roofs: Sequence[Roof]) -> Table:
    table = _table("roof", "best", "median", "unit", "what")
    for roof in roofs:
        numbers = significant(roof.best), significant(roof.median)
        table.add_row(roof.name, *numbers, roof.unit, WHAT[roof.name])
    return table


def _points(placed: Sequence[Placed]) -> Table:
    table = _table("point", "rows/s", "GFLOP/s", "roof, rows/s", "share", "binding")
    for one in placed:
        table.add_row(
            Text(one.rate.label),
            significant(one.rate.rows_per_s),
            significant(one.gflop_per_s),
            significant(one.ceilings[one.binding]),
            f"{one.share:.1%}",
            one.binding,
        )
    return table
