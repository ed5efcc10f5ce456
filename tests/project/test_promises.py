"""What docs/security.md and docs/faults.md promise is shown by tests that there are."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROW = re.compile(r"^\| (.+) \| (.*)\|$", re.MULTILINE)
HEADING = re.compile(r"\*\*`(test_\w+\.py)`\*\*")
PLACES = (("security.md", "## Promises"), ("faults.md", "# What goes wrong"))


def promises(page, heading):
    """Each promise, and pairs of the names of its tests and the text of the file that has them.

    A file is named in a row of its own, above those it counts for, or before its tests.
    """
    section = (ROOT / "docs" / page).read_text().partition(heading)[2].partition("\n## ")[0]
    file = ""
    for promise, tests in ROW.findall(section)[2:]:
        if found := HEADING.fullmatch(promise):
            file = text_of(found[1])
            continue
        named = []
        for name, ending in re.findall(r"`(test_\w+)(\.py)?`", tests):
            if ending:
                file = text_of(name + ending)
            else:
                named.append((name, file))
        yield promise, named


def text_of(name):
    return (ROOT / "tests" / name).read_text()


@pytest.mark.parametrize(
    ("promise", "named"),
    [found for place in PLACES for found in promises(*place)],
    ids=lambda each: each[:30] if isinstance(each, str) else "",
)
def test_each_promise_names_tests_that_there_are(promise, named):
    assert named
    assert [name for name, file in named if f"def {name}(" not in file] == []


@pytest.mark.parametrize("place", PLACES)
def test_both_pages_promise_something(place):
    assert len(list(promises(*place))) > 25
