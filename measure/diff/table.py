"""Show in the terminal what differs between two results."""

from collections.abc import Sequence

from rich.text import Text

from command_line.table import Column, Row, Table
from measure.diff.verdicts import BETTER, UNTOLD, WORSE, Difference
from measure.presentation.format import significant

_STYLES = {WORSE: "bold red", BETTER: "green", UNTOLD: "yellow"}


def render(found: Sequence[Difference]) -> Table:
    """A row for each difference."""
    columns = (
        Column("point", words=True),
        Column("what", words=True),
        Column("old"),
        Column("new"),
        Column("cost: new / old"),
        Column("verdict", words=True),
    )
    return Table(columns, [[_row(one) for one in found]], keys=2)


def _row(one: Difference) -> Row:
    return (
        one.label,
        one.metric,
        *("-" if value is None else significant(value) for value in (one.old, one.new)),
        "-" if one.cost is None else f"{one.cost:.3f}",
        Text(one.verdict, style=_STYLES.get(one.verdict, "")),
    )
