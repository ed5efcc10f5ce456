"""What docs/security.md promises is shown by tests that there are."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROW = re.compile(r"^\| (.+) \| (.*)\|$", re.MULTILINE)


def promises():
    """Each promise, the names of its tests, the text of their file."""
    text = (ROOT / "docs" / "security.md").read_text()
    section = text.partition("## Promises")[2].partition("\n## ")[0]
    file = ""
    for promise, tests in ROW.findall(section)[2:]:
        if heading := re.fullmatch(r"\*\*`(test_\w+\.py)`\*\*", promise):
            file = (ROOT / "tests" / heading[1]).read_text()
        else:
            yield promise, re.findall(r"`(test_\w+)`", tests), file


@pytest.mark.parametrize(
    ("promise", "tests", "file"), list(promises()), ids=lambda each: str(each)[:30]
)
def test_each_promise_names_tests_that_there_are(promise, tests, file):
    assert tests
    assert [name for name in tests if f"def {name}(" not in file] == []
