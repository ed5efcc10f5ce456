"""Measure the server beyond its capacity: goodput, how fast it refuses, and fairness.

python -m client overload [--rounds N] [--out FILE.json]: 0 when every goal is reached, 1 when one
is missed, 2 when it could not be measured.

Each round measures, one after the other: requests of one client alone; the same beside another
client that keeps 100 streams busy; the most that clients in a closed loop get answered; and what
is answered of three times as many requests a second. Goals are ratios within a round.

The model is such that computing is what limits: 8 rows take about 10 ms of one core, and 128 KiB
on the wire. Where receiving is the limit, a client on the same machine slows the server down as
much as a crowd does, and cannot offer three times its capacity.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from command_line.interruption import keeping
from measure.core import environment
from measure.core.comparison import Ratio, ratio
from measure.core.goal import Goal, Part
from measure.core.judged import add_settings, conclude, guarded, settings_of, told, whole_rounds
from measure.core.local_server import running_server
from measure.overload.overload_load import Load, Outcome
from model.export import export
from model.weights import from_seed

SCHEMA = "argmax-serving/overload/1"
MODEL = "overloaded"
OVERLOAD = 3
STREAMS = 100
_MOST_REFUSAL_MS = 10.0


@dataclass(frozen=True, slots=True)
class Settings:
    """Size of the model and of a request, options of the server, how long and how often."""

    classes: int = 4096
    features: int = 4096
    rows: int = 8
    streams: int = STREAMS
    rounds: int = 5
    seconds: float = 2.0
    deadline_s: float = 5.0
    server: tuple[str, ...] = ("--threads", "1", "--group-rows", "8")


@dataclass(slots=True)
class Rounds:
    """What was measured, one value a round."""

    alone_p99_ms: list[float] = field(default_factory=list)
    crowded_p99_ms: list[float] = field(default_factory=list)
    crowd_per_s: list[float] = field(default_factory=list)
    peak_per_s: list[float] = field(default_factory=list)
    offered_per_s: list[float] = field(default_factory=list)
    goodput_per_s: list[float] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)
    refusal_p99_ms: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def run(settings: Settings, report: Callable[[str], None], rounds: Rounds) -> None:
    """Measure all rounds against one server into `rounds`."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        weights = from_seed(settings.classes, settings.features, 0)
        export(folder, MODEL, weights, "float32")
        server = stack.enter_context(running_server(folder, settings.server))
        shape = (settings.rows, settings.features)
        one, many = (
            stack.enter_context(Load(server.address, MODEL, shape, settings.deadline_s))
            for _ in range(2)
        )
        one.closed_loop(1, settings.seconds)
        for number in range(settings.rounds):
            _fairness(settings, one, many, rounds)
            _goodput(settings, many, rounds)
            report(f"round {number + 1} of {settings.rounds}: {_latest(rounds)}")


def _fairness(settings: Settings, one: Load, many: Load, rounds: Rounds) -> None:
    alone = one.closed_loop(1, settings.seconds)
    many.start_streams(settings.streams)
    crowded = one.closed_loop(1, settings.seconds)
    crowd = many.stop_streams()
    rounds.alone_p99_ms.append(alone.p99_ms)
    rounds.crowded_p99_ms.append(crowded.p99_ms)
    rounds.crowd_per_s.append(crowd.answered_per_s)
    for outcome in (alone, crowded, crowd):
        _note(outcome, rounds)


def _goodput(settings: Settings, many: Load, rounds: Rounds) -> None:
    peak = many.closed_loop(32, settings.seconds)
    over = many.open_loop(OVERLOAD * peak.answered_per_s, settings.seconds)
    rounds.peak_per_s.append(peak.answered_per_s)
    rounds.offered_per_s.append(over.offered_per_s)
    rounds.goodput_per_s.append(over.answered_per_s)
    rounds.refused.append(over.refused)
    rounds.refusal_p99_ms.append(over.refusal_p99_ms)
    for outcome in (peak, over):
        _note(outcome, rounds)


def _note(outcome: Outcome, rounds: Rounds) -> None:
    rounds.failed += outcome.failed
    if outcome.wrong:
        rounds.failed.append(f"{outcome.wrong} wrong labels")


def _latest(rounds: Rounds) -> str:
    return (
        f"p99 {rounds.alone_p99_ms[-1]:.1f} ms alone, {rounds.crowded_p99_ms[-1]:.1f} ms in the "
        f"crowd ({rounds.crowd_per_s[-1]:.0f}/s); {rounds.goodput_per_s[-1]:.0f} of "
        f"{rounds.peak_per_s[-1]:.0f}/s with {rounds.offered_per_s[-1]:.0f}/s offered, "
        f"{rounds.refused[-1]} refused, p99 {rounds.refusal_p99_ms[-1]:.1f} ms"
    )


def goals(rounds: Rounds) -> list[Goal]:
    """The goals, each a function of the rounds."""
    fair = ratio(rounds.crowded_p99_ms, rounds.alone_p99_ms)
    good = ratio(rounds.goodput_per_s, rounds.peak_per_s)
    refusals = [value for value in rounds.refusal_p99_ms if value > 0]
    fast = (_part_of_refusals(refusals),) if refusals else ()
    return [
        Goal(
            "fairness",
            f"p99 of one client beside {STREAMS} streams of another at most 3 x alone",
            (Part("p99 in the crowd / alone", fair, 3.0, at_most=True),),
        ),
        Goal(
            "goodput",
            f"at {OVERLOAD} x capacity at least 90% of the peak is answered",
            (Part("goodput / peak", good, 0.9),),
        ),
        Goal(
            "refusals",
            f"refusals in less than {_MOST_REFUSAL_MS:.0f} ms",
            fast,
            missing=() if fast else ("nothing was refused",),
        ),
    ]


def to_json(settings: Settings, described: Mapping[str, Any], rounds: Rounds) -> dict[str, Any]:
    """The record; `described` is the environment."""
    return {
        "schema": SCHEMA,
        "environment": dict(described),
        "settings": asdict(settings),
        "rounds": asdict(rounds),
        "goals": told(goals(rounds)),
    }


def _part_of_refusals(p99_ms: Sequence[float]) -> Part:
    limit: Ratio = ratio(p99_ms, [_MOST_REFUSAL_MS] * len(p99_ms))
    return Part(f"p99 of refusals / {_MOST_REFUSAL_MS:.0f} ms", limit, 1.0, at_most=True)


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the command `overload` and its options."""
    add_settings(parser, __doc__, Settings())
    parser.set_defaults(command=_run)


def _run(args: argparse.Namespace) -> int:
    """Measure and judge."""
    return guarded("argmax-client overload", lambda: _measure(*settings_of(args, Settings())))


def _measure(settings: Settings, out: Path | None) -> int:
    before = environment.snapshot()
    rounds = Rounds()
    with keeping() as kept:
        run(settings, partial(print, file=sys.stderr, flush=True), rounds)
    whole = whole_rounds(rounds, beside=("failed",))
    marks = kept.because(whole, f"{whole} of {settings.rounds} rounds")
    described = environment.describe(before, environment.snapshot())
    record = to_json(settings, described, rounds) | marks
    return conclude(record, goals(rounds), rounds.failed, out, kept)
