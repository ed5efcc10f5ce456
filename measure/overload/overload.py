"""Measure the server beyond its capacity: goodput, speed of refusals, and fairness.

python -m client overload [--rounds N] [--out FILE.json]: exits with 0 if every goal is reached, 1
if one is missed, 2 if it could not be measured.

Latency is the load engine's: from when a request was due, in a closed loop from the send. A p99 is
the nearest rank of at least 459 requests; a phase lasts longer if it needs to.

Each round measures in turn: one client alone; the same client beside another that keeps 100 streams
busy; the peak rate of clients in a closed loop; and the goodput at an offered rate of three times
that peak. Goals are ratios within a round.

The model makes compute the bottleneck: 8 rows take about 10 ms of one core, and 128 KiB on the
wire. If receiving were the bottleneck, a client on the same machine would slow the server down as
much as a crowd does, and could not offer three times its capacity.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from command_line.interruption import keeping
from measure.core import environment
from measure.core.comparison import ratio
from measure.core.judged import add_judged, conclude, goal_records, whole_rounds
from measure.core.local_server import running_server
from measure.core.record import recorded
from measure.core.verdict import Criterion, Goal
from measure.engine.pace import Pace
from measure.engine.processes import LoadProcesses
from measure.overload.phase import (
    LATE,
    REFUSED,
    failures,
    goal_of_pairs,
    in_the_background,
    open_client,
    p99_ms,
    run_phase,
    shown,
)
from model.export import export
from model.weights import from_seed

SCHEMA = "argmax-serving/overload/2"
MODEL = "overloaded"
OVERLOAD = 3
STREAMS = 100
# Requests in flight per stream.
_WINDOW = 2
_CLIENTS = 32
_MOST_REFUSAL_MS = 10.0


@dataclass(frozen=True, slots=True)
class Settings:
    """Size of the model and of a request, server options, duration and rounds."""

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
    """The results, one value per round; a p99 is None with too few samples."""

    alone_p99_ms: list[float | None] = field(default_factory=list)
    crowded_p99_ms: list[float | None] = field(default_factory=list)
    crowd_per_s: list[float] = field(default_factory=list)
    peak_per_s: list[float] = field(default_factory=list)
    offered_per_s: list[float] = field(default_factory=list)
    goodput_per_s: list[float] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)
    refusal_p99_ms: list[float | None] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def run(settings: Settings, report: Callable[[str], None], rounds: Rounds) -> None:
    """Measure all rounds against one server into `rounds`."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        weights = from_seed(settings.classes, settings.features, 0)
        export(folder, MODEL, weights, "float32")
        server = stack.enter_context(running_server(folder, settings.server))
        shape = (settings.classes, settings.features, settings.rows)
        where = (stack, server.address, MODEL, shape, settings.deadline_s)
        one, many = open_client(*where), open_client(*where)
        crowd = open_client(*where, "stream", settings.streams)
        run_phase(one, Pace(1), settings.seconds)
        for number in range(settings.rounds):
            _fairness(settings, one, crowd, rounds)
            _goodput(settings, many, rounds)
            report(f"round {number + 1} of {settings.rounds}: {_latest(rounds)}")


def _fairness(settings: Settings, one: LoadProcesses, many: LoadProcesses, rounds: Rounds) -> None:
    alone = run_phase(one, Pace(1), settings.seconds)
    running = in_the_background(many, Pace(_WINDOW * settings.streams), settings.seconds / 2)
    crowded = run_phase(one, Pace(1), settings.seconds)
    crowd = running.stop()
    rounds.alone_p99_ms.append(p99_ms(alone.latency))
    rounds.crowded_p99_ms.append(p99_ms(crowded.latency))
    rounds.crowd_per_s.append(crowd.rate_per_s)
    rounds.failed += failures((alone, crowded), (REFUSED, LATE)) + failures([crowd], (LATE,))


def _goodput(settings: Settings, many: LoadProcesses, rounds: Rounds) -> None:
    peak = run_phase(many, Pace(_CLIENTS), settings.seconds)
    over = run_phase(many, Pace(rate_per_s=OVERLOAD * peak.rate_per_s), settings.seconds)
    rounds.peak_per_s.append(peak.rate_per_s)
    rounds.offered_per_s.append(over.due * 1e9 / over.elapsed_ns)
    rounds.goodput_per_s.append(over.rate_per_s)
    rounds.refused.append(over.errors[REFUSED])
    rounds.refusal_p99_ms.append(p99_ms(over.error_latency.get(REFUSED)))
    rounds.failed += failures((peak, over), (REFUSED, LATE))


def _latest(rounds: Rounds) -> str:
    return (
        f"p99 {shown(rounds.alone_p99_ms[-1])} alone, {shown(rounds.crowded_p99_ms[-1])} in the "
        f"crowd ({rounds.crowd_per_s[-1]:.0f}/s); {rounds.goodput_per_s[-1]:.0f} of "
        f"{rounds.peak_per_s[-1]:.0f}/s with {rounds.offered_per_s[-1]:.0f}/s offered, "
        f"{rounds.refused[-1]} refused, p99 {shown(rounds.refusal_p99_ms[-1])}"
    )


def goals(rounds: Rounds) -> list[Goal]:
    """The goals, each a function of the rounds."""
    limits = [_MOST_REFUSAL_MS] * len(rounds.refusal_p99_ms)
    good = ratio(rounds.goodput_per_s, rounds.peak_per_s)
    return [
        goal_of_pairs(
            "fairness",
            f"p99 of one client beside {STREAMS} streams of another at most 3 x alone",
            "p99 in the crowd / alone",
            rounds.crowded_p99_ms,
            rounds.alone_p99_ms,
            3.0,
        ),
        Goal(
            "goodput",
            f"at {OVERLOAD} x capacity at least 90% of the peak is answered",
            (Criterion("goodput / peak", good, 0.9),),
        ),
        goal_of_pairs(
            "refusals",
            f"refusals in less than {_MOST_REFUSAL_MS:.0f} ms",
            f"p99 of refusals / {_MOST_REFUSAL_MS:.0f} ms",
            rounds.refusal_p99_ms,
            limits,
            1.0,
        ),
    ]


def to_json(settings: Settings, described: Mapping[str, Any], rounds: Rounds) -> dict[str, Any]:
    """The record; `described` is the environment."""
    return recorded(
        SCHEMA,
        environment=described,
        settings=settings,
        rounds=rounds,
        goals=goal_records(goals(rounds)),
    )


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the command `overload` and its options."""
    add_judged(parser, __doc__, Settings(), _measure)


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
