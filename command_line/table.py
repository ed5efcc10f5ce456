"""Fit a table to its console: fold words, then leave columns out, then stack the rows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table as RichTable
from rich.text import Text

from command_line.pairs import pairs

# Two cells between columns are easier to read; one is enough.
_GAPS = (2, 1)
# Words folded into fewer cells are harder to read than a table without the column.
_NARROWEST_WORDS = 12

Row = Sequence[str | Text]


@dataclass(frozen=True, slots=True)
class Column:
    """A column under `heading`, which may have several lines.

    `words`: its cells are words, which may be folded at spaces; those of other columns are
    numbers, never folded. `rank`: the highest is left out first; 0: never.
    """

    heading: str
    words: bool = False
    rank: int = 0

    @property
    def name(self) -> str:
        """Heading in one line."""
        return " ".join(self.heading.split())


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under columns, to be printed by a rich console as wide as it may be.

    The first `keys` columns name a row; they have no rank. `rows` are in groups, with a gap between
    them. `elsewhere` names the file that has the omitted columns; without it no column is omitted.
    Cells are complete at every width: no digit is cut, and no number is broken over lines.
    """

    columns: Sequence[Column]
    groups: Sequence[Sequence[Row]]
    keys: int = 1
    title: str = ""
    caption: str = ""
    elsewhere: str = ""

    def __post_init__(self) -> None:
        """Reject a row that has not one cell per column, where the table is made."""
        for group in self.groups:
            for row in group:
                if len(row) != len(self.columns):
                    raise ValueError(f"got a row of {len(row)} cells, expected {len(self.columns)}")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table as it fits into `options.max_width`."""
        width = options.max_width
        if self.title:
            yield Text(self.title, style="bold")
        fit = self._fit(width)
        if fit is None:
            yield from self._stacked(width)
        else:
            shown, widths, gap = fit
            yield self._drawn(shown, widths, gap)
            if left_out := [c.name for i, c in enumerate(self.columns) if i not in shown]:
                yield Text(
                    f"not shown at {width} columns: {', '.join(left_out)}; in {self.elsewhere}"
                )
        if self.caption:
            yield Text(self.caption, style="italic")

    def _fit(self, width: int) -> tuple[list[int], list[int], int] | None:
        """Columns to show, their widths and the gap; None if not even the key columns fit."""
        shown = list(range(len(self.columns)))
        while True:
            for gap in _GAPS:
                room = width - gap * (len(shown) - 1)
                widths = self._widths(shown, room)
                if widths is not None:
                    return shown, widths, gap
            ranked = [i for i in shown if self.columns[i].rank and self.elsewhere]
            if not ranked:
                return None
            # Of equal ranks, the rightmost.
            shown.remove(max(ranked, key=lambda i: (self.columns[i].rank, i)))

    def _widths(self, shown: Sequence[int], room: int) -> list[int] | None:
        """Widths of columns that fill at most `room`; columns of words shrink, the widest first."""
        widest = [self._natural(i) for i in shown]
        least = [self._narrowest(i) if self.columns[i].words else self._natural(i) for i in shown]
        if sum(least) > room:
            return None
        while sum(widest) > room:
            at = max(range(len(shown)), key=lambda i: widest[i] - least[i])
            widest[at] = max(least[at], widest[at] - (sum(widest) - room))
        return widest

    def _cells(self, index: int) -> Iterator[Text]:
        for group in self.groups:
            for row in group:
                yield _text(row[index])

    def _natural(self, index: int) -> int:
        cells = [line for cell in self._cells(index) for line in cell.plain.splitlines()]
        return max(map(cell_len, [*self.columns[index].heading.splitlines(), *cells, " "]))

    def _narrowest(self, index: int) -> int:
        cells = [word for cell in self._cells(index) for word in cell.plain.split()]
        words = max(map(cell_len, [*self.columns[index].heading.split(), *cells, " "]))
        return min(max(words, _NARROWEST_WORDS), self._natural(index))

    def _drawn(self, shown: Sequence[int], widths: Sequence[int], gap: int) -> RichTable:
        # The box itself is one cell wide between columns.
        table = RichTable(
            box=box.SIMPLE_HEAD, show_edge=False, padding=(0, gap - 1, 0, 0), pad_edge=False
        )
        for index, width in zip(shown, widths, strict=True):
            column = self.columns[index]
            table.add_column(
                Text(column.heading),
                justify="left" if column.words else "right",
                no_wrap=not column.words,
                width=width,
            )
        for group in self.groups:
            table.add_section()
            for row in group:
                table.add_row(*(_text(row[index]) for index in shown))
        return table

    def _stacked(self, width: int) -> Iterator[Text]:
        """Yield each row as a block of its own, a line for each column."""
        for group in self.groups:
            for row in group:
                cells = [_text(cell) for cell in row]
                yield Text(", ".join(c.plain for c in cells[: self.keys] if c.plain), style="bold")
                rest = zip(self.columns[self.keys :], cells[self.keys :], strict=True)
                named = [(column, cell) for column, cell in rest if cell.plain]
                longest = max((len(column.name) for column, _ in named), default=0) + 2
                for column, cell in named:
                    value = ", ".join(cell.plain.splitlines())
                    name = f"{column.name}:"
                    for line in pairs([(name, value)], width, name_width=longest, start="  "):
                        yield Text(line, style=cell.style)


def _text(cell: str | Text) -> Text:
    return Text(cell) if isinstance(cell, str) else cell
