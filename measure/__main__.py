"""Command line of the client: `python -m client COMMAND`."""

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from client.errors import RequestFailed, UsageError
from command_line import terminal
from command_line.interruption import Interrupted, interruptible
from command_line.parser import REFUSED, WRONG, exit_codes
from command_line.parser import Parser as PlainParser
from measure.commands import compare as compare_command
from measure.commands import diff as diff_command
from measure.commands import limits as limits_command
from measure.commands import load as load_command
from measure.commands import loadgen as loadgen_command
from measure.commands import plan as plan_command
from measure.commands import predict as predict_command
from measure.commands import report as report_command
from measure.commands import slo as slo_command
from measure.commands import sweep as sweep_command

PROGRAM = "argmax-client"
# Instruments whose modules parse their own options.
PROGRAMS = {
    "side-by-side": ("measure.side_by_side.command", "this service beside its limits and others"),
    "overload": ("measure.overload.overload", "goodput, refusals and fairness beyond capacity"),
    "floods": ("measure.overload.floods", "what other clients notice of HTTP/2 floods"),
}


class Parser(PlainParser):
    """A parser whose errors are those of the rest of the program."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse found."""
        raise UsageError(message)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. 0: done; 1: wrong labels, failed requests; 2: usage or environment.

    One that a signal ends gives 128 and the signal's number: 130 after Ctrl-C.
    """
    given = sys.argv[1:] if argv is None else list(argv)
    if given and given[0] in PROGRAMS:
        program: Callable[[Sequence[str]], int] = importlib.import_module(
            PROGRAMS[given[0]][0]
        ).main
        return program(given[1:])
    with interruptible():
        try:
            args = _parser().parse_args(given)
            command: Callable[[argparse.Namespace], int] = args.command
            return command(args)
        except RequestFailed as error:
            return _complain(f"error: {error}", WRONG)
        except BrokenPipeError:
            return _reader_gone()
        except (UsageError, OSError, MemoryError) as error:
            return _complain(f"error: {str(error) or type(error).__name__}", REFUSED)
        except Interrupted as interrupted:
            return _complain(str(interrupted), interrupted.exit_code)


def _parser() -> Parser:
    parser = Parser(
        prog=PROGRAM,
        description="Predict with a served model, or measure it.",
        epilog=exit_codes("wrong labels, failed requests, or a bound or limit that is missed"),
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    predict_command.add(commands)
    sweep_command.add(commands)
    compare_command.add(commands)
    load_command.add(commands)
    slo_command.add(commands)
    loadgen_command.add(commands)
    plan_command.add(commands)
    limits_command.add(commands)
    diff_command.add(commands)
    report_command.add(commands)
    for name, (_, text) in PROGRAMS.items():
        commands.add_parser(name, help=text)
    return parser


def _complain(text: str, status: int) -> int:
    terminal.complain(PROGRAM, text)
    return status


def _reader_gone() -> int:
    """Whoever read stdout has enough, as `head` does; the code that a shell gives for SIGPIPE."""
    # Else Python would complain of it again at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + signal.SIGPIPE


if __name__ == "__main__":
    sys.exit(main())
