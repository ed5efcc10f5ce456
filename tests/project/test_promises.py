"""Every promise of docs/faults.md and docs/security.md names tests that exist and run."""

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
def defined_in(file):
    """Tests that a file below tests/ defines, and whether `make test` leaves each out."""
    tree = ast.parse((ROOT / "tests" / file).read_text())
    return {
        node.name: any(ast.unparse(mark) == "pytest.mark.slow" for mark in node.decorator_list)
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


@pytest.mark.parametrize(
    ("promise", "named"), PROMISES, ids=lambda each: each[:30] if isinstance(each, str) else ""
)
def test_each_promise_names_tests_that_exist(promise, named):
    assert named, promise
    missing = [name for name in named if name.split("::")[1] not in defined_in(name.split("::")[0])]
    assert missing == []


@pytest.mark.parametrize(
    ("promise", "named"), PROMISES, ids=lambda each: each[:30] if isinstance(each, str) else ""
)
def test_each_promise_is_tested_in_every_run(promise, named):
    assert not all(defined_in(name.split("::")[0])[name.split("::")[1]] for name in named), promise


def test_both_pages_promise_something():
    assert all(len(table["rows"]) > 25 for table in PAGES.values())


def test_the_pages_are_what_is_made_of_the_promises():
    command = [sys.executable, ROOT / "docs" / "promises.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
