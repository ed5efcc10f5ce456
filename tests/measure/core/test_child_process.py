import contextlib
import sys

import pytest

from client.errors import RequestFailed, UsageError
from measure.core.child_process import talking_to
from measure.core.processes import child

HEAD = """
import sys, time
from client.errors import RequestFailed
from measure.core.child_process import Parent
parent = Parent()
"""
ECHO = HEAD + "for line in parent: print('noise'); parent.say(said=line)"


@contextlib.contextmanager
def talk(code):
    with talking_to((sys.executable, "-c", code), "the process") as process:
        yield process


def test_lines_go_there_and_back_whatever_the_process_prints():
    with talk(ECHO) as process:
        assert process.ask([1, "ä\n"]) == {"said": [1, "ä\n"]}
        assert process.ask(None) == {"said": None}


def test_errors_that_it_reports_are_raised():
    code = HEAD + "parent.fail(RequestFailed('NOT_FOUND', 'no model')); parent.fail(OSError(5))"
    with talk(code) as process:
        with pytest.raises(RequestFailed, match="NOT_FOUND: no model"):
            process.receive()
        with pytest.raises(UsageError, match=r"OSError\(5\)"):
            process.receive()


def test_a_process_that_ended_is_told_of_with_its_last_words():
    with (
        talk("import sys; sys.exit('too early')") as process,
        pytest.raises(UsageError, match="the process ended: too early"),
    ):
        process.ask({"do": "something"})


def test_a_process_that_is_silent_is_killed():
    with talk(HEAD + "time.sleep(600)") as process, pytest.raises(UsageError, match="ended"):
        process.receive(timeout_s=0.1)


def test_a_process_ends_when_its_parent_is_gone():
    # The parent of this one ends at once, and leaves it with a stdin that has ended.
    code = HEAD + "parent.end_with_it(); time.sleep(600)"
    with child((sys.executable, "-c", code)) as process:
        assert process.wait(60) == 1
