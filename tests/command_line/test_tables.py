import ast
import re
from pathlib import Path

import every_table
import pytest
from rich.cells import cell_len
from rich.text import Text

from command_line.pairs import pairs
from command_line.table import Column, Table

ROOT = Path(__file__).resolve().parents[2]
WIDTHS = (60, 80, 200)
NOTE = re.compile(r"not shown at (\d+) columns: (.*?); in (\S+)")


def programs():
    """Every file of every program, by its name in the repository."""
    folders = {path.parent for path in ROOT.glob("*/*.py")} - {ROOT / "tests"}
    paths = [path for folder in folders for path in folder.rglob("*.py")]
    return [path.relative_to(ROOT).as_posix() for path in paths]


def makes_tables_of_rich(tree):
    """Whether rich's tables are imported, by any of their names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            imported = {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
        elif isinstance(node, ast.Import):
            imported = {alias.name for alias in node.names}
        else:
            continue
        if "rich.table" in imported:
            return True
    return False


def lines_that_make_tables(tree):
    """Lines with a call of what is called Table, or in_terminal, there."""
    makers = {("command_line.table", "Table"), ("measure.presentation.columns", "in_terminal")}
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names = {
        alias.asname or alias.name
        for node in imports
        for alias in node.names
        if (node.module, alias.name) in makers
    }
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return {call.lineno for call in calls if getattr(call.func, "id", None) in names}


def words(text):
    """What is separated by spaces and has a digit in it."""
    return [word for word in text.split() if re.search(r"\d", word)]


def shown(table, text):
    """The columns that are shown, and what the note says of the others."""
    note = NOTE.search(" ".join(text.split()))
    left_out = note[2].split(", ") if note else []
    names = [column.name for column in table.columns]
    assert set(left_out) <= set(names)
    assert note is None or note[3] == table.elsewhere
    return [index for index, name in enumerate(names) if name not in left_out], note


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", every_table.EVERY)
def test_no_table_loses_a_digit(name, width):
    tables, _ = every_table.built()
    assert tables[name]
    for table in tables[name]:
        text = every_table.printed(table, width)
        assert "…" not in text
        assert max(cell_len(line) for line in text.splitlines()) <= width
        columns, note = shown(table, text)
        assert note is None or int(note[1]) == width
        there = text.replace(",\n", "\n").split()
        for group in table.groups:
            for row in group:
                cells = [Text(str(row[index])).plain for index in columns]
                for word in (word for cell in cells for word in words(cell)):
                    assert word in there or f"{word}," in there, (word, text)


def test_tables_are_made_in_one_way_and_every_one_of_them_is_tried():
    trees = {name: ast.parse((ROOT / name).read_text(), name) for name in programs()}
    assert [name for name, tree in trees.items() if makes_tables_of_rich(tree)] == [
        "command_line/table.py"
    ]
    # What `in_terminal` does is tried wherever it is called.
    del trees[every_table.COLUMNS]
    made = {(name, line) for name, tree in trees.items() for line in lines_that_make_tables(tree)}
    assert len(made) > 10
    _, tried = every_table.built()
    assert sorted(made) == sorted(tried)


def table(**options):
    columns = (
        Column("mode", words=True),
        Column("rate"),
        Column("first\np50", rank=2),
        Column("note", words=True, rank=1),
    )
    rows = [("unary", "1,234,567", "12.3", "all is well"), ("shm", "9", "0.001", "")]
    return Table(columns, [rows], **options)


def test_columns_go_by_rank_and_are_named():
    every = {"elsewhere": "sweep.csv"}
    assert "not shown" not in every_table.printed(table(**every), 40)
    assert "note" in every_table.printed(table(**every), 30)
    text = every_table.printed(table(**every), 29)
    assert " ".join(text.split()).endswith("not shown at 29 columns: first p50; in sweep.csv")
    assert "12.3" not in text
    text = every_table.printed(table(**every), 20)
    assert " ".join(text.split()).endswith("at 20 columns: first p50, note; in sweep.csv")
    assert "1,234,567" in text


def test_rows_are_stacked_where_nothing_may_be_left_out():
    text = every_table.printed(table(), 24)
    assert text.splitlines() == [
        "unary",
        "  rate:      1,234,567",
        "  first p50: 12.3",
        "  note:      all is well",
        "shm",
        "  rate:      9",
        "  first p50: 0.001",
    ]


def test_a_row_must_have_a_cell_for_each_column():
    with pytest.raises(ValueError, match="got a row of 2 cells, expected 4"):
        Table(table().columns, [[("unary", "1")]])


def test_a_cell_is_no_markup():
    rows = [[("[red]", "1", "2", "[/]")]]
    text = every_table.printed(Table(table().columns, rows), 60)
    assert "[red]" in text
    assert "[/]" in text


def test_pairs_are_folded_between_words():
    assert pairs([("a", "1"), ("long", "2 3")], 20) == ["a     1", "long  2 3"]
    assert pairs([("name", "one two 333")], 14) == ["name  one two", "      333"]
    assert pairs([("name", "x" * 12)], 16) == ["name", "    " + "x" * 12]
    assert pairs([("", "x" * 12)], 10, name_width=6) == ["    " + "x" * 12]
