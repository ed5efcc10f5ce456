"""Show roofs, and the points below them, in the terminal."""

from collections.abc import Mapping, Sequence

from rich.text import Text

from command_line.table import Column, Table
from measure.limits.peaks import WHAT, Roof
from measure.limits.placement import Placed
from measure.presentation.format import significant

_ELSEWHERE = "limits.json"

HOW_BINDING = (
    "binding: the roof that allows the fewest rows per second; share: how much of it is reached. "
    "Small batches are latency-bound; no roof limits them."
)


def render(
    roofs: Sequence[Roof], skipped: Mapping[str, str], placed: Sequence[Placed]
) -> list[Table | Text]:
    """The roofs, then the points with the binding roof of each."""
    parts: list[Table | Text] = [_roofs(roofs)]
    parts += [Text(f"{name}: not measured: {why}") for name, why in skipped.items()]
    if placed:
        parts += [Text(), _points(placed), Text(HOW_BINDING)]
    return parts


def _roofs(roofs: Sequence[Roof]) -> Table:
    return Table(
        (
            Column("roof", words=True),
            Column("best"),
            Column("median", rank=1),
            Column("unit", words=True),
            Column("what", words=True),
        ),
        [
            [
                (one.name, significant(one.best), significant(one.median), one.unit, WHAT[one.name])
                for one in roofs
            ]
        ],
        elsewhere=_ELSEWHERE,
    )


def _points(placed: Sequence[Placed]) -> Table:
    rows = [
        (
            one.rate.label,
            significant(one.rate.rows_per_s),
            significant(one.gflop_per_s),
            significant(one.ceilings[one.binding]),
            f"{one.share:.1%}",
            one.binding,
        )
        for one in placed
    ]
    columns = (
        Column("point", words=True),
        Column("rows/s"),
        Column("GFLOP/s", rank=1),
        Column("roof, rows/s", rank=2),
        Column("share"),
        Column("binding", words=True),
    )
    return Table(columns, [rows], elsewhere=_ELSEWHERE)
