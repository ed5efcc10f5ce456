import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CODE = """
from command_line import terminal
terminal.results().print("[bold red]result[/] 1.5")
terminal.progress().print("[bold red]progress[/] 1.5")
print(terminal.is_live(terminal.results()), terminal.results().width)
"""


def printed(on_terminal=False, **variables):
    """What comes on stdout, a pipe or a terminal, and on stderr, a pipe."""
    environment = {"PATH": os.environ["PATH"], "TERM": "xterm-256color", **variables}
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as screen:
        done = subprocess.run(
            [sys.executable, "-c", CODE],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=theirs if on_terminal else subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=100,
            check=True,
        )
        out = done.stdout
        if on_terminal:
            out = screen.read(65536)
        os.close(theirs)
    return out.decode(), done.stderr.decode()


def test_a_pipe_gets_results_alone():
    assert printed() == ("result 1.5\nFalse 120\n", "progress 1.5\n")


def test_a_terminal_gets_colour_and_the_pipe_beside_it_none():
    out, err = printed(on_terminal=True)
    assert "\x1b[1;31mresult\x1b[0m" in out
    assert "True" in out
    assert err == "progress 1.5\n"


@pytest.mark.parametrize(
    ("variables", "live"), [({"NO_COLOR": "1"}, "True"), ({"TERM": "dumb"}, "False")]
)
def test_a_terminal_may_refuse_colour(variables, live):
    out, _ = printed(on_terminal=True, **variables)
    assert "\x1b" not in out
    assert live in out


def test_columns_say_how_wide_a_pipe_is():
    assert "False 60" in printed(COLUMNS="60")[0]
