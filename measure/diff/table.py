"""Show in the terminal what differs between two results."""

from collections.abc import Sequence

from rich.text import Text

from command_line.table import Table
from measure.diff.verdicts import BETTER, UNDECIDED, WORSE, Difference
from measure.presentation.columns import Column, in_terminal
from measure.presentation.format import BAD, significant

_STYLES = {WORSE: BAD, BETTER: "green", UNDECIDED: "yellow"}
_COLUMNS: tuple[Column[Difference], ...] = (
    Column("point", lambda one: one.label, words=True),
    Column("what", lambda one: one.metric, words=True),
    Column("old", lambda one: significant(one.old)),
    Column("new", lambda one: significant(one.new)),
    Column("cost: new / old", lambda one: "-" if one.cost is None else f"{one.cost:.3f}"),
    Column("verdict", lambda one: Text(one.verdict, _STYLES.get(one.verdict, "")), words=True),
)


def render(found: Sequence[Difference]) -> Table:
    """A row for each difference."""
    return in_terminal(_COLUMNS, [found], keys=2)
