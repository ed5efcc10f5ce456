"""Command line of the client: `python -m client COMMAND`."""

import argparse
import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from client.errors import RequestFailed, UsageError
from command_line import extras
from command_line.guard import guarded
from command_line.parser import REFUSED, WRONG, exit_codes
from command_line.parser import Parser as PlainParser

PROGRAM = "argmax-client"


@dataclass(frozen=True, slots=True)
class Command:
    """A row of --help; its `module` is imported only if the command is used.

    The module's `add(parser)` declares the options, and sets `command` to the function to run.
    `extra` is the extra that the module needs, or None.
    """

    name: str
    module: str
    help: str
    extra: str | None = "measure"


GROUPS: Mapping[str, Sequence[Command]] = {
    "call a server": (
        Command(
            "predict",
            "measure.commands.calling.predict",
            "labels, or other outputs, for rows of .npy files",
            None,
        ),
        Command(
            "health",
            "measure.commands.calling.health",
            "whether a server or a model is ready, for exec probes",
            None,
        ),
    ),
    "measure": (
        Command("sweep", "measure.commands.sweep", "latency and throughput over batch sizes"),
        Command("load", "measure.commands.load", "latency under load, in closed or open loops"),
        Command("slo", "measure.commands.slo", "highest rate whose p99 stays within a bound"),
        Command(
            "loadgen", "measure.commands.loadgen", "the scenarios of MLCommons LoadGen", "loadgen"
        ),
        Command(
            "overload",
            "measure.overload.overload",
            "goodput, refusals and fairness beyond capacity",
        ),
        Command("floods", "measure.overload.floods", "effect of HTTP/2 floods on other clients"),
        Command(
            "plan", "measure.commands.plan", "replicas, batches and network for a rate and a p99"
        ),
    ),
    "compare and report": (
        Command("compare", "measure.commands.compare", "execution providers side by side"),
        Command(
            "side-by-side",
            "measure.side_by_side.command",
            "this service beside its limits and others",
        ),
        Command(
            "limits", "measure.commands.limits", "the machine's roofs, and a result below them"
        ),
        Command(
            "diff", "measure.commands.diff", "whether a newer result is worse than an older one"
        ),
        Command("report", "measure.commands.report", "one HTML page of any set of results"),
    ),
}


class Parser(PlainParser):
    """A parser that reports errors like the rest of the program."""

    def error(self, message: str) -> NoReturn:
        """Raise argparse's error."""
        raise UsageError(message)


class _Program(Parser):
    """The top-level parser, which shows the commands in groups."""

    def format_help(self) -> str:
        """Return usage, a section for each group of commands, exit codes."""
        formatter = self._get_formatter()
        formatter.add_usage(self.usage, self._actions, self._mutually_exclusive_groups)
        formatter.add_text(self.description)
        for group, commands in GROUPS.items():
            formatter.start_section(group)
            formatter.add_arguments([argparse.Action([], c.name, help=c.help) for c in commands])
            formatter.end_section()
        formatter.start_section("options")
        formatter.add_arguments([action for action in self._actions if action.option_strings])
        formatter.end_section()
        formatter.add_text(self.epilog)
        return formatter.format_help()


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. 0: done; 1: wrong labels, failed requests; 2: usage or environment.

    A command that a signal ends returns 128 plus the signal's number: 130 after Ctrl-C.
    """
    given = sys.argv[1:] if argv is None else list(argv)

    def run() -> int:
        args = parser_for(given).parse_args(given)
        command: Callable[[argparse.Namespace], int] = args.command
        return command(args)

    return guarded(PROGRAM, run, {RequestFailed: WRONG, UsageError: REFUSED})


def parser_for(words: Sequence[str]) -> Parser:
    """The program's parser, with the options of the command that `words` begin with.

    Raises MissingExtra if the command's extra is not installed.
    """
    parser = _Program(
        prog=PROGRAM,
        description="Predict with a served model, or measure it.",
        epilog=exit_codes("wrong labels, failed requests, or a bound or limit that is missed"),
    )
    # All names are registered, so that the error for a misspelt one suggests the right one.
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    for command in (command for group in GROUPS.values() for command in group):
        own = commands.add_parser(command.name)
        if words[:1] == [command.name]:
            _imported(command).add(own)
    return parser


def _imported(command: Command) -> Any:
    if command.extra is None:
        return importlib.import_module(command.module)
    return extras.imported(command.module, command.extra, command.name)


if __name__ == "__main__":
    sys.exit(main())
