"""Measure all systems in turn, and compare every label with the float64 reference."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import psutil

from client.errors import RequestFailed
from measure.core.comparison import interleaved
from measure.core.verification import Truth, check
from measure.peers.systems import System, Turn, turn_starts, warm_up_starts

# Most memory that a peer used for one batch, in copies of it: MLServer 8.4, and its client 1.2.
_PEER_COPIES = 10
# A slower system would make the rounds take hours.
_WARM_UP_LIMIT_S = 60.0


@dataclass(slots=True)
class Cell:
    """One system at one batch size, a value for each round.

    `error` gives the reason if values are missing. `wrong_labels` counts labels that rounding does
    not explain, of `labels` checked ones.
    """

    system: str
    batch_size: int
    rows_per_s: list[float] = field(default_factory=list)
    p50_ns: list[float] = field(default_factory=list)
    first_share: list[float] = field(default_factory=list)
    labels: int = 0
    wrong_labels: int = 0
    near_ties: int = 0
    disagreements: int = 0
    error: str | None = None


def measure(
    systems: Sequence[System],
    batch_size: int,
    rounds: int,
    truth: Truth,
    report: Callable[[str], None],
) -> list[Cell]:
    """Measure a cell for each system; their i-th values are from the same round.

    A round goes through all systems, every other one in reverse. A system that fails its warm-up is
    skipped; one that fails later keeps its values.
    """
    cells = [Cell(system.name, batch_size) for system in systems]
    runs: list[tuple[System, Cell]] = []
    for system, cell in zip(systems, cells, strict=True):
        cell.error = _warm_up(system, batch_size, cell, truth)
        if cell.error is None:
            runs.append((system, cell))
    report(f"batch size {batch_size}: {rounds} rounds of {len(runs)} systems")
    interleaved([_run(system, cell, truth) for system, cell in runs], rounds)
    return cells


def _warm_up(system: System, batch_size: int, cell: Cell, truth: Truth) -> str | None:
    wanted = _PEER_COPIES * batch_size * truth.x[0].nbytes
    available = psutil.virtual_memory().available
    if system.kind == "peer" and available < wanted:
        # Otherwise the kernel might kill a process, perhaps an unrelated one.
        return f"skipped: {available / 2**30:.1f} of {wanted / 2**30:.1f} GiB of memory are free"
    started = time.monotonic()
    try:
        turn = system.turn(batch_size, list(warm_up_starts(batch_size, len(truth.x))))
    except RequestFailed as error:
        return str(error)
    _count(turn, list(warm_up_starts(batch_size, len(truth.x))), cell, truth)
    took_s = time.monotonic() - started
    if took_s > _WARM_UP_LIMIT_S:
        return f"too slow to measure: its warm-up took {took_s:.0f} s"
    return None


def _run(system: System, cell: Cell, truth: Truth) -> Callable[[], float]:
    def run() -> float:
        if cell.error is not None:
            return math.nan
        starts = turn_starts(cell.batch_size, len(truth.x), len(cell.rows_per_s))
        try:
            turn = system.turn(cell.batch_size, starts)
        except RequestFailed as error:
            cell.error = str(error)
            return math.nan
        cell.rows_per_s.append(turn.rows_per_s)
        cell.p50_ns.append(turn.p50_ns)
        cell.first_share.append(turn.first_share)
        _count(turn, starts, cell, truth)
        return turn.rows_per_s

    return run


def _count(turn: Turn, starts: Sequence[int], cell: Cell, truth: Truth) -> None:
    for start, labels in zip(starts, turn.labels, strict=True):
        found = check(truth, start, labels)
        cell.labels += len(labels)
        cell.wrong_labels += found.wrong_labels
        cell.near_ties += found.near_ties
        cell.disagreements += found.disagreements
