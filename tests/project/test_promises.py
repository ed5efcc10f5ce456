"""Every promise of docs/faults.md and docs/security.md names tests that exist."""

import ast
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = tomllib.loads((ROOT / "docs" / "promises.toml").read_text())
PROMISES = [
    (row[table["columns"][0]], row["tests"]) for table in PAGES.values() for row in table["rows"]
]


@cache
def names_in(file):
    """Names of the tests that a file below tests/ defines."""
    tree = ast.parse((ROOT / "tests" / file).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(
    ("promise", "named"), PROMISES, ids=lambda each: each[:30] if isinstance(each, str) else ""
)
def test_each_promise_names_tests_that_exist(promise, named):
    assert named, promise
    missing = [name for name in named if name.split("::")[1] not in names_in(name.split("::")[0])]
    assert missing == []


def test_both_pages_promise_something():
    assert all(len(table["rows"]) > 25 for table in PAGES.values())


def test_the_pages_are_what_is_made_of_the_promises():
    command = [sys.executable, ROOT / "docs" / "promises.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
