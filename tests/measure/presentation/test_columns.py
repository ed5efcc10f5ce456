"""One definition of a table's columns gives the terminal's table and the page's."""

import io

from rich.console import Console
from rich.text import Text

from measure.presentation.columns import Column, in_terminal
from measure.presentation.format import BAD, alarm, flagged, mebibytes, significant
from measure.report.section import Cell, table_of

COLUMNS = (
    Column("name", lambda item: item["name"], words=True, colour=lambda item: item["colour"]),
    Column("p50\nms", lambda item: significant(item["p50"]), "p50, ms", over="time"),
    Column("max", lambda item: significant(item["max"]), only="page", over="time"),
    Column("near\nties", lambda item: "7", rank=1),
    Column("errors", lambda item: alarm(item["errors"])),
    Column("why", lambda item: flagged("one\ntwo", bad=False), only="terminal"),
)
ITEMS = [
    {"name": "a", "colour": "#123456", "p50": 1.0, "max": 2.0, "errors": 0},
    {"name": "b", "colour": "#654321", "p50": None, "max": 3.0, "errors": 4},
]


def test_the_terminal_shows_its_columns_under_their_headings():
    table = in_terminal(COLUMNS, [ITEMS], keys=1, caption="note", elsewhere="x.json")
    assert [column.heading for column in table.columns] == [
        "name",
        "p50\nms",
        "near\nties",
        "errors",
        "why",
    ]
    assert [column.words for column in table.columns] == [True, False, False, False, False]
    assert [column.rank for column in table.columns] == [0, 0, 1, 0, 0]
    assert table.groups[0][1][1] == "-"
    assert table.groups[0][1][3] == Text("4", BAD)
    file = io.StringIO()
    Console(file=file, width=60).print(table)
    assert "note" in file.getvalue()


def test_a_page_shows_its_columns_in_one_line_with_headings_above():
    table = table_of("Points", COLUMNS, [ITEMS[:1], ITEMS[1:]], note="Note.", part="points")
    assert table.columns == ["name", "p50, ms", "max", "near ties", "errors"]
    assert table.over == [("", 1), ("time", 2), ("", 2)]
    assert table.left == [0]
    assert (table.heading, table.note, table.part) == ("Points", "Note.", "points")
    ((first,), (second,)) = table.groups
    assert first == [Cell("a", colour="#123456"), "1.00", "2.00", "7", "0"]
    assert second[4] == Cell("4", bad=True)


def test_a_page_has_no_headings_above_columns_that_name_none():
    assert table_of("Points", COLUMNS[3:], [ITEMS]).over == ()


def test_lines_of_a_cell_stand_in_one_on_a_page():
    several = Column("errors", lambda item: Text("1 A\n2 B", BAD))
    ((row,),) = table_of("Points", [several], [ITEMS[:1]]).groups
    assert row == [Cell("1 A, 2 B", bad=True)]


def test_a_row_may_have_a_style_in_the_terminal():
    table = in_terminal(COLUMNS, [ITEMS], row_style=lambda item: "bold" * (item["name"] == "b"))
    assert table.groups[0][0][0] == "a"
    assert table.groups[0][1][0] == Text("b", "bold")


def test_an_unknown_number_is_a_dash():
    assert [significant(None), mebibytes(None), alarm(None).plain] == ["-", "-", "-"]
    assert (mebibytes(3 * 2**20), alarm(None).style) == ("3", "")
