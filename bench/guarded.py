"""Run a measurement as a program: errors are one line, a signal ends what was started."""

from collections.abc import Callable

from client.arguments import positive
from client.errors import RequestFailed, UsageError
from command_line import terminal
from command_line.extras import MissingExtra
from command_line.interruption import Interrupted, interruptible
from command_line.parser import REFUSED, Parser, exit_codes


def guarded(program: str, run: Callable[[], int]) -> int:
    """The exit code of `run`; 2 when it cannot be run, 128 and the number when a signal ends it."""
    with interruptible():
        try:
            return run()
        except (UsageError, RequestFailed, MissingExtra, OSError, MemoryError) as error:
            terminal.complain(program, f"error: {str(error) or type(error).__name__}")
            return REFUSED
        except Interrupted as interrupted:
            terminal.complain(program, str(interrupted))
            return interrupted.exit_code


def rounds_of(program: str, text: str | None) -> int:
    """How many rounds the command line asks for, of a program that takes nothing else."""
    parser = Parser(
        prog=program,
        description=(text or "").partition("\n")[0],
        epilog=exit_codes("the goal is missed, or a label is wrong"),
    )
    parser.add_argument("rounds", type=positive, nargs="?", default=40, help="default: %(default)s")
    rounds: int = parser.parse_args().rounds
    return rounds
