"""Begin and end a measurement that goals judge: its options, its record, its exit code."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from bench.goals import REACHED, Goal
from client.record import dumps, write_text_atomically
from command_line.interruption import Kept
from command_line.parser import Parser, exit_codes
from command_line.paths import path

Settings = TypeVar("Settings", bound=Any)


def settings_of(
    argv: Sequence[str] | None, prog: str, text: str, default: Settings
) -> tuple[Settings, Path | None]:
    """Settings as an option for each field changes the default ones; where to write the record.

    A field is a number, or words that are given as one.
    """
    parser = Parser(
        prog=prog,
        description=text.split("\n", maxsplit=1)[0],
        epilog=exit_codes("a goal is missed", keeps=True),
    )
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
    values = vars(parser.parse_args(argv))
    out: Path | None = values.pop("out")
    if out is not None:
        # Minutes of measuring must not end at a folder that is not there.
        out.parent.mkdir(parents=True, exist_ok=True)
    return replace(default, **values), out


def told(goals: Sequence[Goal]) -> list[dict[str, Any]]:
    """Goals as a record holds them."""
    return [{"verdict": goal.verdict, **asdict(goal)} for goal in goals]


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
        write_text_atomically(out, dumps(record))
    for goal in goals:
        print(f"{goal.name}: {goal.verdict}; {goal.text}")
        for part in goal.parts:
            it = part.ratio
            print(f"  {part.what} {it.median:.2f} ({it.low:.2f} to {it.high:.2f})")
    for error in failed[:5]:
        print(f"failed: {error}")
    kept.end(out or "the lines above, in no file")
    return 0 if not failed and all(goal.verdict == REACHED for goal in goals) else 1
