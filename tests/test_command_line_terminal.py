import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CODE = """
from command_line import terminal
terminal.results().print("[bold red]result[/] 1.5")
terminal.progress().print("[bold red]progress[/] 1.5")
print(terminal.is_live(terminal.results()), terminal.results().width)
"""


def printed(on_terminal=False, columns=90, **variables):
    """What comes on stdout, a pipe or a terminal, and on stderr, a pipe."""
    environment = {"PATH": os.environ["PATH"], "TERM": "xterm-256color", **variables}
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
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
    out, err = printed()
    assert re.fullmatch(r"result 1\.5\nFalse \d{4,}\n", out)
    assert err == "progress 1.5\n"


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


def test_a_pipe_gets_whole_lines_whatever_the_environment_says():
    # COLUMNS may be nobody's wish: whatever loads readline hands it to its children.
    told = printed(COLUMNS="60", FORCE_COLOR="1")[0]
    assert int(told.split()[-1]) > 1000


def test_a_terminal_gets_what_fits():
    assert printed(on_terminal=True, columns=60)[0].split()[-1] == "60"
