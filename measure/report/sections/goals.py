"""Show the goals of a run side by side with other systems, or beyond capacity.

`bench` makes these records, which the client does not import: it knows them by their schemas.
"""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from measure.core.record import decoded
from measure.core.verdict import Check, Goal, Standing
from measure.presentation.format import milliseconds, significant
from measure.report import trust
from measure.report.section import Cell, Row, Section, Table, Verdict
from measure.report.values import place

BENCH = "argmax-serving/bench/1"
# Records of the first kind count latency otherwise; their verdicts are shown as they are.
OVERLOADS = ("argmax-serving/overload/1", "argmax-serving/overload/2")


@dataclass(frozen=True, slots=True)
class _Point:
    batch_size: int
    rows_per_s: list[float]
    p50_ns: list[float]
    labels: int
    wrong_labels: int
    near_ties: int
    error: str | None


@dataclass(frozen=True, slots=True)
class _System:
    label: str
    kind: str
    points: list[_Point]


@dataclass(frozen=True, slots=True)
class _Judged:
    wrong_labels: int


@dataclass(frozen=True, slots=True)
class _Bench:
    environment: dict[str, Any]
    settings: dict[str, Any]
    systems: list[_System]
    concurrency: _Judged | None
    memory: _Judged | None
    goals: list[Goal]
    skipped: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Rounds:
    failed: list[str]


@dataclass(frozen=True, slots=True)
class _Overload:
    environment: dict[str, Any]
    settings: dict[str, Any]
    rounds: _Rounds
    goals: list[Goal]


def section(record: Mapping[str, Any]) -> Section:
    """Return what a page shows of goals. RecordError where it cannot be read."""
    if record["schema"] == BENCH:
        bench = decoded(record, _Bench)
        of, labels, more = "this service beside others", _bench_labels(bench), [_systems(bench)]
        return _section(record, bench, ("Side by side", of, "bench.json"), labels, more)
    overload = decoded(record, _Overload)
    words = ("Beyond capacity", "an overloaded server", "overload.json")
    return _section(record, overload, words, _overload_labels(overload), [])


def _section(
    record: Mapping[str, Any],
    told: _Bench | _Overload,
    words: tuple[str, str, str],
    labels: Check,
    more: Sequence[Table],
) -> Section:
    heading, of, name = words
    where = place(told.environment)
    return Section(
        heading=heading,
        sentence=f"Goals of {of}, in {told.settings['rounds']} interleaved rounds"
        f"{', on ' * bool(where)}{where}.",
        verdicts=_verdicts(told.goals, labels, told.environment),
        checks=[labels, trust.steal(told.environment)],
        plots=[],
        tables=[_goals(told.goals), _ratios(told.goals), *more],
        record=dict(record),
        name=name,
    )


def _verdicts(
    goals: Sequence[Goal], labels: Check, environment: Mapping[str, Any]
) -> list[Verdict]:
    missed = [f"{goal.name}: {goal.text}" for goal in goals if goal.verdict is Standing.MISSED]
    counts = Counter(goal.verdict for goal in goals)
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    doubts = trust.disturbed(environment)
    answer = [Verdict("warn" if missed else "good", f"Goals: {told}.", missed)]
    if labels.passed is False:
        answer.insert(0, Verdict("fail", "Failed: do not trust these numbers.", [labels.text]))
    return [*answer, Verdict("warn", "Read with care:", doubts)] if doubts else answer


def _bench_labels(bench: _Bench) -> Check:
    """Whether every label is right, and what is no peer answered everything."""
    points = [point for system in bench.systems for point in system.points]
    others = [part for part in (bench.concurrency, bench.memory) if part is not None]
    # Not of what is sent as float16 or int8: that is rounded, and the goals tell how many agree.
    wrong = sum(point.wrong_labels for point in points) + sum(one.wrong_labels for one in others)
    failed = [
        f"{system.label}, batch size {point.batch_size:,}: {point.error}"
        for system in bench.systems
        if system.kind in ("limit", "service")
        for point in system.points
        if point.error is not None
    ]
    labels = sum(point.labels for point in points)
    text = "; ".join([f"{labels:,} labels, {wrong:,} wrong", *failed])
    return Check(trust.LABELS, not wrong and not failed, text)


def _overload_labels(overload: _Overload) -> Check:
    """Whether what was not refused was answered, and right."""
    failed = overload.rounds.failed
    return Check(trust.LABELS, not failed, "; ".join(failed[:3]) or "nothing but refusals failed")


def _goals(goals: Sequence[Goal]) -> Table:
    return Table(
        heading="Goals",
        columns=("goal", "verdict", "what"),
        groups=[
            [
                (goal.name, Cell(goal.verdict, bad=goal.verdict is Standing.MISSED), goal.text)
                for goal in goals
            ]
        ],
        left=[1, 2],
    )


def _ratios(goals: Sequence[Goal]) -> Table:
    groups: list[list[Row]] = []
    for goal in goals:
        rows: list[Row] = [
            (
                goal.name,
                part.what,
                significant(part.ratio.median),
                f"{significant(part.ratio.low)} to {significant(part.ratio.high)}",
                f"{part.ratio.pairs:,}",
                f"{'at most' if part.at_most else 'at least'} {part.threshold:g}",
            )
            for part in goal.parts
        ]
        rows += [(goal.name, what, Standing.NOT_MEASURED, "-", "-", "-") for what in goal.missing]
        groups.append(rows)
    return Table(
        heading="Ratios",
        columns=("goal", "ratio", "median", "95% interval", "pairs", "wanted"),
        groups=groups,
        note=" ".join(f"{goal.name}: {note}." for goal in goals for note in goal.notes),
        left=[1],
    )


def _systems(bench: _Bench) -> Table:
    return Table(
        heading="Systems",
        columns=(
            *("system", "kind", "batch", "predictions/s", "p50, ms", "wrong", "near ties"),
            "not measured, because",
        ),
        groups=[
            [
                (
                    system.label,
                    system.kind,
                    f"{point.batch_size:,}",
                    significant(statistics.median(point.rows_per_s or [0.0])),
                    milliseconds(statistics.median(point.p50_ns) if point.p50_ns else None),
                    Cell(f"{point.wrong_labels:,}", bad=point.wrong_labels > 0),
                    f"{point.near_ties:,}",
                    point.error or "",
                )
                for point in system.points
            ]
            for system in bench.systems
        ],
        note="Medians of the rounds. "
        + " ".join(f"{name}: {why}." for name, why in bench.skipped.items()),
        left=[1, 7],
        folded=True,
    )
