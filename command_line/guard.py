"""Run a program, and turn every error that ends it into one line on stderr and an exit code."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Mapping

from command_line import shortage
from command_line.extras import MissingExtra
from command_line.interruption import Interrupted, interruptible
from command_line.parser import REFUSED

# Needed by every program.
_ALWAYS: Mapping[type[Exception], int] = {
    MissingExtra: REFUSED,
    OSError: REFUSED,
    MemoryError: REFUSED,
}


def guarded(program: str, run: Callable[[], int], codes: Mapping[type[Exception], int]) -> int:
    """Exit code of `run`, or of the error that ended it: the one that `codes` gives its class.

    A missing extra, a file and memory are 2 in every program. A signal gives 128 and its number,
    as a shell does: 130 after Ctrl-C. Errors of other classes are raised.
    """
    expected = {**codes, **_ALWAYS}
    with interruptible():
        try:
            return run()
        except BrokenPipeError:
            return _reader_gone()
        except tuple(expected) as error:
            complain(program, f"error: {_text(error)}")
            return next(code for kind, code in expected.items() if isinstance(error, kind))
        except Interrupted as interrupted:
            complain(program, str(interrupted))
            return interrupted.exit_code
        except Exception as error:
            short = shortage.described(error)
            if short is None:
                raise
            complain(program, f"error: {short}")
            return REFUSED


def complain(program: str, text: str) -> None:
    """One line on stderr: the program, then what is wrong."""
    # Where nobody reads it, the exit code has to do.
    with contextlib.suppress(OSError):
        print(f"{program}: {' '.join(text.split())}", file=sys.stderr)


def _text(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error) or ("out of memory" if isinstance(error, MemoryError) else repr(error))


def _reader_gone() -> int:
    """The process that read stdout ended, as `head` does; a shell's code for SIGPIPE."""
    # Else Python would complain of it again at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + signal.SIGPIPE
