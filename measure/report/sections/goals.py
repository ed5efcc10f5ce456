"""Show the goals of a run side by side with other systems, or beyond capacity.

`measure.side_by_side` and `measure.overload` make these records and stand above this module, which
therefore knows them by their schemas.
"""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from measure.core.record import decoded
from measure.core.verdict import Check, Goal, Standing
from measure.presentation.columns import Column
from measure.presentation.format import alarm, flagged, milliseconds, significant
from measure.report import trust
from measure.report.section import Row, Section, Table, Verdict, table_of
from measure.report.values import on

BENCH = "argmax-serving/bench/1"
# Records of the first kind measure latency differently; their verdicts are shown as recorded.
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


_GOAL_COLUMNS: tuple[Column[Goal], ...] = (
    Column("goal", lambda goal: goal.name),
    Column(
        "verdict",
        lambda goal: flagged(goal.verdict, bad=goal.verdict is Standing.MISSED),
        words=True,
    ),
    Column("what", lambda goal: goal.text, words=True),
)
_SYSTEM_COLUMNS: tuple[Column[tuple[_System, _Point]], ...] = (
    Column("system", lambda row: row[0].label),
    Column("kind", lambda row: row[0].kind, words=True),
    Column("batch", lambda row: f"{row[1].batch_size:,}"),
    Column("predictions/s", lambda row: significant(_median(row[1].rows_per_s) or 0.0)),
    Column("p50, ms", lambda row: milliseconds(_median(row[1].p50_ns))),
    Column("wrong", lambda row: alarm(row[1].wrong_labels)),
    Column("near ties", lambda row: f"{row[1].near_ties:,}"),
    Column("not measured, because", lambda row: row[1].error or "", words=True),
)


def section(content: Mapping[str, Any]) -> Section:
    """Return what a page shows of goals. RecordError where it cannot be read."""
    if content["schema"] == BENCH:
        bench = decoded(content, _Bench)
        of, labels, more = "this service beside others", _bench_labels(bench), [_systems(bench)]
        return _section(content, bench, ("Side by side", of, "bench.json"), labels, more)
    overload = decoded(content, _Overload)
    words = ("Beyond capacity", "an overloaded server", "overload.json")
    return _section(content, overload, words, _overload_labels(overload), [])


def _section(
    content: Mapping[str, Any],
    record: _Bench | _Overload,
    words: tuple[str, str, str],
    labels: Check,
    more: Sequence[Table],
) -> Section:
    heading, of, name = words
    return Section(
        heading=heading,
        sentence=f"Goals of {of}, in {record.settings['rounds']} interleaved rounds"
        f"{on(record.environment)}.",
        verdicts=_verdicts(record.goals, labels, record.environment),
        checks=[labels, trust.steal(record.environment)],
        plots=[],
        tables=[table_of("Goals", _GOAL_COLUMNS, [record.goals]), _ratios(record.goals), *more],
        record=dict(content),
        name=name,
    )


def _verdicts(
    goals: Sequence[Goal], labels: Check, environment: Mapping[str, Any]
) -> list[Verdict]:
    missed = [f"{goal.name}: {goal.text}" for goal in goals if goal.verdict is Standing.MISSED]
    counts = Counter(goal.verdict for goal in goals)
    summary = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    answer = [Verdict("warn" if missed else "good", f"Goals: {summary}.", missed)]
    if labels.passed is False:
        answer.insert(0, Verdict("fail", "Failed: do not trust these numbers.", [labels.text]))
    return [*answer, *trust.with_care(environment)]


def _bench_labels(bench: _Bench) -> Check:
    """Whether every label is right, and every system but the peers answered everything."""
    points = [point for system in bench.systems for point in system.points]
    others = [part for part in (bench.concurrency, bench.memory) if part is not None]
    # Labels of float16 and int8 are left out: they are rounded, and the goals count how many agree.
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
    """Whether every request that was not refused got the right answer."""
    failed = overload.rounds.failed
    return Check(trust.LABELS, not failed, "; ".join(failed[:3]) or "nothing but refusals failed")


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
    return table_of(
        "Systems",
        _SYSTEM_COLUMNS,
        [[(system, point) for point in system.points] for system in bench.systems],
        note="Medians of the rounds. "
        + " ".join(f"{name}: {why}." for name, why in bench.skipped.items()),
        folded=True,
    )


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None
