"""Measure how floods affect other clients: one client's p99 under each, over that alone.

python -m client floods [--rounds N] [--out FILE.json]: exits with 0 if every goal is reached, 1 if
one is missed, 2 if it could not be measured.

Each round measures, for each flood, requests of one client alone and beside it, the flood first in
every other round. Goals are ratios within a round. The flood uses one connection, from a separate
process and at a bounded rate, because on the same machine sending takes cores from the server; the
record holds the rate that was sent.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from command_line.interruption import keeping
from measure.core import environment
from measure.core.child_process import talking_to
from measure.core.judged import add_judged, conclude, goal_records, whole_rounds
from measure.core.local_server import running_server
from measure.core.verdict import Goal
from measure.engine.pace import Pace
from measure.engine.processes import LoadProcesses
from measure.overload.http2_floods import FLOODS
from measure.overload.phase import (
    LATE,
    failures,
    goal_of_pairs,
    open_client,
    p99_ms,
    run_phase,
    shown,
)
from model.export import export
from model.weights import from_seed

SCHEMA = "argmax-serving/floods/2"
MODEL = "flooded"
# Messages are decoded, frames are not: the promise for those is another.
MOST_RATIO = dict.fromkeys(FLOODS, 2.0) | {"packed messages": 3.0}


@dataclass(frozen=True, slots=True)
class Settings:
    """Size of the model and of a request, flood pieces per second, duration and rounds."""

    classes: int = 64
    features: int = 4096
    rows: int = 8
    rounds: int = 10
    seconds: float = 1.0
    deadline_s: float = 5.0
    resets_per_s: float = 1000.0
    endless_per_s: float = 1000.0
    growing_per_s: float = 100.0
    packed_per_s: float = 4.0
    server: tuple[str, ...] = ("--threads", "1")

    def per_s(self, flood: str) -> float:
        """Pieces per second of one of FLOODS."""
        rates = (self.resets_per_s, self.endless_per_s, self.growing_per_s, self.packed_per_s)
        return dict(zip(FLOODS, rates, strict=True))[flood]


@dataclass(slots=True)
class Rounds:
    """Results under one flood, one value per round; a p99 is None with too few samples."""

    alone_p99_ms: list[float | None] = field(default_factory=list)
    flooded_p99_ms: list[float | None] = field(default_factory=list)
    sent_per_s: list[float] = field(default_factory=list)
    connections: list[int] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def run(settings: Settings, report: Callable[[str], None], measured: dict[str, Rounds]) -> None:
    """Measure all rounds of each flood against one server into `measured`."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        export(folder, MODEL, from_seed(settings.classes, settings.features, 0), "float32")
        server = stack.enter_context(running_server(folder, settings.server))
        shape = (settings.classes, settings.features, settings.rows)
        load = open_client(stack, server.address, MODEL, shape, settings.deadline_s)
        run_phase(load, Pace(1), settings.seconds)
        for number in range(settings.rounds):
            for flood, rounds in measured.items():
                phases = [
                    partial(_alone, settings, load, rounds),
                    partial(_flooded, settings, load, rounds, server.address, flood),
                ]
                for phase in phases if number % 2 == 0 else reversed(phases):
                    phase()
                report(f"round {number + 1} of {settings.rounds}, {flood}: {_latest(rounds)}")


def _alone(settings: Settings, load: LoadProcesses, rounds: Rounds) -> None:
    found = run_phase(load, Pace(1), settings.seconds)
    rounds.alone_p99_ms.append(p99_ms(found.latency))
    rounds.failed += failures([found], (LATE,))


def _flooded(
    settings: Settings, load: LoadProcesses, rounds: Rounds, address: str, flood: str
) -> None:
    with _flooding(address, flood, settings.per_s(flood), rounds):
        found = run_phase(load, Pace(1), settings.seconds)
    rounds.flooded_p99_ms.append(p99_ms(found.latency))
    rounds.failed += failures([found], (LATE,))


@contextmanager
def _flooding(address: str, flood: str, per_s: float, rounds: Rounds) -> Iterator[None]:
    """A flood that has begun when the block begins, and ends with it."""
    command = [sys.executable, "-m", "measure.overload.http2_floods", address, flood, str(per_s)]
    with talking_to(command, "the flood") as process:
        process.receive()
        yield
        process.finish()
        counts = process.receive()
    rounds.sent_per_s.append(counts["per_s"])
    rounds.connections.append(counts["connections"])


def _latest(rounds: Rounds) -> str:
    return (
        f"p99 {shown(rounds.alone_p99_ms[-1])} alone, {shown(rounds.flooded_p99_ms[-1])} beside "
        f"{rounds.sent_per_s[-1]:.0f}/s over {rounds.connections[-1]} connections"
    )


def goals(measured: dict[str, Rounds]) -> list[Goal]:
    """A goal for each flood."""
    return [
        goal_of_pairs(
            flood,
            f"p99 of one client beside it at most {MOST_RATIO[flood]:g} x alone",
            "p99 beside it / alone",
            rounds.flooded_p99_ms,
            rounds.alone_p99_ms,
            MOST_RATIO[flood],
        )
        for flood, rounds in measured.items()
    ]


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the command `floods` and its options."""
    add_judged(parser, __doc__, Settings(), _measure)


def _measure(settings: Settings, out: Path | None) -> int:
    before = environment.snapshot()
    measured = {flood: Rounds() for flood in FLOODS}
    with keeping() as kept:
        run(settings, partial(print, file=sys.stderr, flush=True), measured)
    counts = {flood: whole_rounds(r, beside=("failed",)) for flood, r in measured.items()}
    marks = kept.because(
        min(counts.values()), f"{min(counts.values())} of {settings.rounds} rounds"
    )
    described = environment.describe(before, environment.snapshot())
    record = {
        "schema": SCHEMA,
        "environment": dict(described),
        "settings": settings,
        "floods": measured,
        "goals": goal_records(goals(measured)),
    } | marks
    failed = [error for rounds in measured.values() for error in rounds.failed]
    return conclude(record, goals(measured), failed, out, kept)
