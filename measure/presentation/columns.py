"""Define the columns of a table once, for the terminal and for a page."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from rich.text import Text

from command_line.table import Column as TerminalColumn
from command_line.table import Table

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Column(Generic[Item]):
    """A column: its heading, and the text of its cell for an item; BAD text is red everywhere.

    `page` is its heading on a page, by default `heading` in one line; `over` is a heading above
    it there, shared with its neighbours, and `colour` a swatch before the text. `words` and `rank`
    are those of a column in the terminal. `only` names the one place that shows the column.
    """

    heading: str
    cell: Callable[[Item], str | Text]
    page: str = ""
    words: bool = False
    rank: int = 0
    only: Literal["terminal", "page"] | None = None
    over: str = ""
    colour: Callable[[Item], str] | None = None

    @property
    def page_heading(self) -> str:
        """Heading on a page."""
        return self.page or " ".join(self.heading.split())


def in_terminal(
    columns: Sequence[Column[Item]],
    groups: Sequence[Sequence[Item]],
    *,
    row_style: Callable[[Item], str] = lambda item: "",
    keys: int = 1,
    title: str = "",
    caption: str = "",
    elsewhere: str = "",
) -> Table:
    """Table for the terminal, a row for each item; the rest is as in `command_line.table.Table`."""
    shown = [column for column in columns if column.only != "page"]
    return Table(
        [TerminalColumn(column.heading, column.words, column.rank) for column in shown],
        [
            [[_styled(column.cell(item), row_style(item)) for column in shown] for item in group]
            for group in groups
        ],
        keys=keys,
        title=title,
        caption=caption,
        elsewhere=elsewhere,
    )


def _styled(cell: str | Text, style: str) -> str | Text:
    return Text(cell, style=style) if isinstance(cell, str) and style else cell
