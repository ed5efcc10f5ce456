"""Define the tables of roofs and of the points below them, and show them in the terminal."""

from collections.abc import Mapping, Sequence

from rich.text import Text

from command_line.table import Table
from measure.limits.peaks import WHAT, Roof
from measure.limits.placement import Placed
from measure.presentation.columns import Column, in_terminal
from measure.presentation.format import significant
from measure.presentation.looks import looks_of

_ELSEWHERE = "limits.json"

HOW_BINDING = (
    "binding: the roof that allows the fewest rows per second; share: how much of it is reached. "
    "Small batches are latency-bound; no roof limits them."
)

ROOF_COLUMNS: tuple[Column[Roof], ...] = (
    Column("roof", lambda roof: roof.name, words=True),
    Column("best", lambda roof: significant(roof.best)),
    Column("median", lambda roof: significant(roof.median), rank=1),
    Column("unit", lambda roof: roof.unit, words=True),
    Column("what", lambda roof: WHAT[roof.name], words=True),
    Column(
        "rounds", lambda roof: ", ".join(map(significant, roof.rounds)), words=True, only="page"
    ),
)


def render(
    roofs: Sequence[Roof], skipped: Mapping[str, str], placed: Sequence[Placed]
) -> list[Table | Text]:
    """The roofs, then the points with the binding roof of each."""
    parts: list[Table | Text] = [in_terminal(ROOF_COLUMNS, [roofs], elsewhere=_ELSEWHERE)]
    parts += [Text(f"{name}: not measured: {why}") for name, why in skipped.items()]
    if placed:
        points = in_terminal(point_columns(placed), [placed], elsewhere=_ELSEWHERE)
        parts += [Text(), points, Text(HOW_BINDING)]
    return parts


def point_columns(placed: Sequence[Placed]) -> tuple[Column[Placed], ...]:
    """Columns of the points; on a page each roof that bounds any of them has its own."""
    looks = looks_of([one.rate.mode for one in placed])
    names = dict.fromkeys(name for one in placed for name in one.ceilings)
    return (
        Column(
            "point", lambda p: p.rate.label, words=True, colour=lambda p: looks[p.rate.mode].colour
        ),
        Column("rows/s", lambda p: significant(p.rate.rows_per_s)),
        Column("GFLOP/s", lambda p: significant(p.gflop_per_s), rank=1),
        Column("operations per byte", lambda p: significant(p.intensity), only="page"),
        Column(
            "roof, rows/s", lambda p: significant(p.ceilings[p.binding]), rank=2, only="terminal"
        ),
        Column("binding", lambda p: p.binding, words=True, only="page"),
        Column("share", lambda p: f"{p.share:.1%}"),
        Column("binding", lambda p: p.binding, words=True, only="terminal"),
        *(_ceiling(name) for name in names),
    )


def _ceiling(name: str) -> Column[Placed]:
    return Column(f"{name}, rows/s", lambda p: significant(p.ceilings.get(name)), only="page")
