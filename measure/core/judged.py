"""Set up and conclude a measurement with goals: options, record, exit code."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from client.errors import RequestFailed, UsageError
from command_line import guard
from command_line.interruption import Kept
from command_line.parser import REFUSED, Parser, exit_codes
from command_line.paths import path
from measure.core.arguments import positive
from measure.core.comparison import ratio
from measure.core.record import encoded, write_record
from measure.core.verdict import Goal, Standing, lines

Settings = TypeVar("Settings", bound=Any)


def add_judged(
    parser: argparse.ArgumentParser,
    text: str | None,
    default: Settings,
    measure: Callable[[Settings, Path | None], int],
) -> None:
    """Declare a command with an option for each field of its settings, and `--out`.

    `measure` gets the settings and the record's path, and returns the exit code; errors end as in
    `guarded`. A field is a number, or a list of words given as one argument. The first line of
    `text` becomes the description.
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
    parser.set_defaults(
        command=lambda args: guarded(parser.prog, lambda: measure(*_settings_of(args, default)))
    )


def _settings_of(args: argparse.Namespace, default: Settings) -> tuple[Settings, Path | None]:
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


def run_rounds(program: str, text: str | None, measure: Callable[[int], int]) -> int:
    """The exit code of a program that takes a number of rounds and nothing else, as `guarded`."""
    parser = Parser(
        prog=program,
        description=(text or "").partition("\n")[0],
        epilog=exit_codes("the goal is missed, or a label is wrong"),
    )
    parser.add_argument("rounds", type=positive, nargs="?", default=40, help="default: %(default)s")
    return guarded(program, partial(measure, parser.parse_args().rounds))


def conclude_share(
    rates: Mapping[str, Sequence[float]], spec: str, wrong_labels: int, least: float
) -> int:
    """Print two things' rates, in the format `spec`, and the ratio of the first to the second.

    0 when all of its interval is at least `least` and no label is wrong, else 1.
    """
    first, second = rates.values()
    found = ratio(first, second)
    width = max(map(len, rates)) + 1
    for name, values in rates.items():
        print(f"{name + ':':{width}}", *(f"{value:{spec}}" for value in values))
    print(f"ratio {found:.2f} of {found.pairs} pairs")
    print(f"wrong labels: {wrong_labels}")
    return 0 if found.low >= least and not wrong_labels else 1
