"""What a page shows of one result, whatever kind of result it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from rich.text import Text

from measure.core.verdict import Check, Level
from measure.presentation.columns import Column, Item
from measure.presentation.format import BAD
from measure.report.axes import Figure

POINTS, CHECKS, ENVIRONMENT = "points", "checks", "environment"


@dataclass(frozen=True, slots=True)
class Linked:
    """Text with a link to the part of its section that explains it, by the part's name."""

    text: str
    part: str

    @property
    def subject(self) -> str:
        """The subject of the text: everything up to its first colon."""
        return self.text.partition(": ")[0]

    @property
    def rest(self) -> str:
        """The text after its subject."""
        return self.text.removeprefix(self.subject)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Verdict:
    """Findings of one level under a headline, shown before everything else."""

    level: Level
    headline: str
    findings: Sequence[str | Linked] = ()


@dataclass(frozen=True, slots=True)
class Plot:
    """A figure with its caption; `name` is unique among the plots of a section."""

    name: str
    figure: Figure
    caption: str


@dataclass(frozen=True, slots=True)
class Cell:
    """Text of a table; `bad` is shown in red, `colour` as a swatch before it."""

    text: str
    bad: bool = False
    colour: str | None = None


Row = Sequence[Cell | str]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows in groups, each as long as `columns`; the first column names the row.

    `over` are headings above the columns, each with how many of them it spans. `left` are columns
    of words. A `folded` table opens at a click. `part` is the name by which `Linked` finds it.
    """

    heading: str
    columns: Sequence[str]
    groups: Sequence[Sequence[Row]]
    note: str = ""
    over: Sequence[tuple[str, int]] = ()
    left: Sequence[int] = ()
    folded: bool = False
    part: str = ""


def table_of(
    heading: str,
    columns: Sequence[Column[Item]],
    groups: Sequence[Sequence[Item]],
    *,
    note: str = "",
    folded: bool = False,
    part: str = "",
) -> Table:
    """Table for a page, a row for each item, of the columns that a page shows."""
    shown = [column for column in columns if column.only != "terminal"]
    over = [(text, len(list(group))) for text, group in groupby(shown, lambda column: column.over)]
    return Table(
        heading,
        [column.page_heading for column in shown],
        [[[_cell(column, item) for column in shown] for item in group] for group in groups],
        note,
        over if any(text for text, _ in over) else (),
        [index for index, column in enumerate(shown) if column.words],
        folded,
        part,
    )


def _cell(column: Column[Item], item: Item) -> Cell | str:
    found = column.cell(item)
    text = found if isinstance(found, str) else ", ".join(found.plain.splitlines())
    bad = isinstance(found, Text) and found.style == BAD
    colour = column.colour(item) if column.colour else None
    return Cell(text, bad, colour) if bad or colour else text


@dataclass(frozen=True, slots=True)
class Card:
    """A few large numbers, each with its unit, under a coloured heading."""

    heading: str
    colour: str
    facts: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Section:
    """One result, the `record` that it was made from, and the `name` of the record's file."""

    heading: str
    sentence: str
    verdicts: Sequence[Verdict]
    checks: Sequence[Check]  # by the questions of `measure.report.trust`
    plots: Sequence[Plot]
    tables: Sequence[Table]
    record: dict[str, Any]
    name: str
    cards: Sequence[Card] = ()
