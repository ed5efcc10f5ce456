"""Run a command's `main` in this process: what it prints, and its exit code, as of a process."""

import contextlib
import io
import subprocess


def run(main, *words):
    """Call `main` with words as on a command line.

    For tests of what a command does: a process of its own takes a second to import it.
    """
    with (
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
    ):
        code = main([str(word) for word in words])
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())
