"""Begin and end a measurement that goals judge: its options, its record, its exit code."""

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
    """Declare an option for each field of the settings, and where to write the record.

    A field is a number, or words that are given as one. The first line of `text` says what is
    measured.
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
    """Settings as the options of `add_settings` were given; where to write the record."""
    values = {field.name: getattr(args, field.name) for field in fields(default)}
    out: Path | None = args.out
    if out is not None:
        # Minutes of measuring must not end at a folder that is not there.
        out.parent.mkdir(parents=True, exist_ok=True)
    return replace(default, **values), out


def told(goals: Sequence[Goal]) -> list[dict[str, Any]]:
    """Goals as a record holds them."""
    return [{"verdict": goal.verdict, **encoded(goal)} for goal in goals]


def whole_rounds(rounds: Any, *, beside: Sequence[str]) -> int:
    """Cut the lists of what was measured to whole rounds; how many there are.

    A round that was interrupted has left values in some of the lists. `beside` names those that
    have no value for each round.
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
    """0 when every goal is reached and nothing failed, else 1; the record goes where `out` says.

    Raises Interrupted in the end where a signal ended the measuring.
    """
    if out is not None:
        write_record(out, record)
    for goal in goals:
        print(*lines(goal), sep="\n")
    for error in failed[:5]:
        print(f"failed: {error}")
    kept.end(out or "the lines above, in no file")
    return 0 if not failed and all(goal.verdict is Standing.REACHED for goal in goals) else 1


def guarded(program: str, run: Callable[[], int]) -> int:
    """The exit code of `run`; 2 when it cannot be run, 128 and the number when a signal ends it."""
    return guard.guarded(program, run, {UsageError: REFUSED, RequestFailed: REFUSED})


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
