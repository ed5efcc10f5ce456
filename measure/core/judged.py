"""Set up and conclude a measurement with goals: options, record, exit code."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

from client.errors import RequestFailed, UsageError
from command_line import guard
from command_line.interruption import Kept
from command_line.parser import REFUSED, Parser, exit_codes
from command_line.paths import path
from measure.core.arguments import positive
from measure.core.record import encoded, write_record
from measure.core.verdict import Goal, Standing, lines

Settings = TypeVar("Settings", bound=Any)


def add_settings(parser: argparse.ArgumentParser, text: str | None, default: Any) -> None:
    """Declare an option for each field of the settings, and one for the record's path.

    A field is a number, or a list of words given as one argument. The first line of `text` becomes
    the description.
    """
    parser.description = (text or "").partition("\n")[0]
    parser.epilog = exit_codes("a goal is missed", keeps=True)
    for field in fields(default):
        value = getattr(default, field.name)
        words = isinstance(value, tuple)
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=(lambda given: tuple(given.split())) if words else type(value),
            default=value,
            help=f"default: {' '.join(value) if words else value}",
        )
    parser.add_argument("--out", type=path, metavar="FILE", help="where to write the record")


def settings_of(args: argparse.Namespace, default: Settings) -> tuple[Settings, Path | None]:
    """Return the settings that the options of `add_settings` give, and the record's path."""
    values = {field.name: getattr(args, field.name) for field in fields(default)}
    out: Path | None = args.out
    if out is not None:
        # Fail before minutes of measuring, not after, if the folder does not exist.
        out.parent.mkdir(parents=True, exist_ok=True)
    return replace(default, **values), out


def goal_records(goals: Sequence[Goal]) -> list[dict[str, Any]]:
    """Goals in the form that records hold."""
    return [{"verdict": goal.verdict, **encoded(goal)} for goal in goals]


def whole_rounds(rounds: Any, *, beside: Sequence[str]) -> int:
    """Truncate the lists of measured values to whole rounds; return their number.

    An interrupted round has left values in some of the lists. `beside` names the fields that do not
    have one value per round.
    """
    names = [field.name for field in fields(rounds) if field.name not in beside]
    count = min(len(getattr(rounds, name)) for name in names)
    for name in names:
        del getattr(rounds, name)[count:]
    return count


def conclude(
    record: Mapping[str, Any],
    goals: Sequence[Goal],
    failed: Sequence[str],
    out: Path | None,
    kept: Kept,
) -> int:
    """Write the record to `out`; return 0 if every goal is reached and nothing failed, else 1.

    Raises Interrupted afterwards if a signal ended the measurement.
    """
    if out is not None:
        write_record(out, record)
    for goal in goals:
        print(*lines(goal), sep="\n")
    for error in failed[:5]:
        print(f"failed: {error}")
    kept.end(out or "only the lines above; no file was written")
    return 0 if not failed and all(goal.verdict is Standing.REACHED for goal in goals) else 1


def guarded(program: str, run: Callable[[], int]) -> int:
    """Return the exit code of `run`; 2 if it cannot run, 128 plus the number of a signal."""
    return guard.guarded(program, run, {UsageError: REFUSED, RequestFailed: REFUSED})


def rounds_of(program: str, text: str | None) -> int:
    """Parse the command line of a program whose only argument is the number of rounds."""
    parser = Parser(
        prog=program,
        description=(text or "").partition("\n")[0],
        epilog=exit_codes("the goal is missed, or a label is wrong"),
    )
    parser.add_argument("rounds", type=positive, nargs="?", default=40, help="default: %(default)s")
    rounds: int = parser.parse_args().rounds
    return rounds
