"""Every line on stderr is a JSON object of printable ASCII, also those of libraries."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT

PROGRAM = """
import logging, threading, warnings
from server.app import logs

logs.set_up("info")
log = logging.getLogger("x")
nasty = 'a\\nb\\x1b[2J\\u2028\\x7f\\x9b\\ud800"'
log.info(nasty)
log.info("of %s", nasty)
log.info("extra", extra={"model": nasty, nasty: {nasty: [nasty, object()]}})
log.info("x" * 2**20, extra={"y": "y" * 2**20, "z": {"z": b"z" * 2**20}})
try:
    raise ValueError(nasty + "e" * 2**20)
except ValueError:
    log.exception("failed")
warnings.warn(nasty, stacklevel=1)
def fail():
    raise KeyError(nasty)
thread = threading.Thread(target=fail)
thread.start()
thread.join()
class Bad:
    def __del__(self):
        fail()
Bad()
log.info("last")
assert logs.writer().flush(30)
"""


@pytest.fixture(scope="module")
def written():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, check=True, timeout=60
    )
    return done.stderr.decode("ascii")


def test_every_line_is_json(written):
    lines = [json.loads(line) for line in written.splitlines()]
    messages = [line["message"] for line in lines]
    nasty = 'a\nb\x1b[2J\u2028\x7f\x9b\ud800"'
    assert messages[0] == nasty
    assert messages[1] == f"of {nasty}"
    assert lines[2]["model"] == nasty
    assert messages[4:] == [
        "failed",
        messages[5],
        "a thread failed",
        messages[7],
        "last",
    ]
    assert nasty in messages[5]
    assert "KeyError" in lines[6]["exc_info"]
    assert "KeyError" in lines[7]["exc_info"]


def test_no_control_character_is_written(written):
    assert all(" " <= character <= "~" or character == "\n" for character in written)


def test_lines_are_bounded(written):
    assert max(map(len, written.splitlines())) < 40_000
    assert len(written.splitlines()[3]) < 7000
