"""Show the goals of a run side by side with other systems, or beyond capacity.

`bench` makes these records, which the client does not import: it knows them by their schemas.
"""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from measure.presentation.format import milliseconds, significant
from measure.report import trust
from measure.report.section import Cell, Check, Row, Section, Table, Verdict
from measure.report.values import place

BENCH = "argmax-serving/bench/1"
# Records of the first kind count latency otherwise; their verdicts are shown as they are.
OVERLOADS = ("argmax-serving/overload/1", "argmax-serving/overload/2")
_MISSED = "missed"


def section(record: Mapping[str, Any]) -> Section:
    """Return what a page shows of goals. KeyError or TypeError where it cannot be read."""
    benched, goals = record["schema"] == BENCH, record["goals"]
    labels = _bench_labels(record) if benched else _overload_labels(record)
    where = place(record["environment"])
    rounds = record["settings"]["rounds"]
    return Section(
        heading="Side by side" if benched else "Beyond capacity",
        sentence=f"Goals of {'this service beside others' if benched else 'an overloaded server'}, "
        f"in {rounds} interleaved rounds{', on ' * bool(where)}{where}.",
        verdicts=_verdicts(goals, labels, record["environment"]),
        checks=[labels, trust.steal(record["environment"])],
        plots=[],
        tables=[_goals(goals), _ratios(goals), *([_systems(record)] if benched else [])],
        record=dict(record),
        name="bench.json" if benched else "overload.json",
    )


def _verdicts(
    goals: Sequence[Mapping[str, Any]], labels: Check, environment: Mapping[str, Any]
) -> list[Verdict]:
    missed = [f"{goal['name']}: {goal['text']}" for goal in goals if goal["verdict"] == _MISSED]
    counts = Counter(goal["verdict"] for goal in goals)
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    doubts = trust.disturbed(environment)
    answer = [Verdict("warn" if missed else "good", f"Goals: {told}.", missed)]
    if labels.passed is False:
        answer.insert(0, Verdict("fail", "Failed: do not trust these numbers.", [labels.text]))
    return [*answer, Verdict("warn", "Read with care:", doubts)] if doubts else answer


def _bench_labels(record: Mapping[str, Any]) -> Check:
    """Whether every label is right, and what is no peer answered everything."""
    points = [point for system in record["systems"] for point in system["points"]]
    others = [record[name] for name in ("concurrency", "memory") if record[name] is not None]
    # Not of what is sent as float16 or int8: that is rounded, and the goals tell how many agree.
    wrong = sum(one["wrong_labels"] for one in [*points, *others])
    failed = [
        f"{system['label']}, batch size {point['batch_size']:,}: {point['error']}"
        for system in record["systems"]
        if system["kind"] in ("limit", "service")
        for point in system["points"]
        if point["error"] is not None
    ]
    labels = sum(point["labels"] for point in points)
    text = "; ".join([f"{labels:,} labels, {wrong:,} wrong", *failed])
    return Check(trust.LABELS, not wrong and not failed, text)


def _overload_labels(record: Mapping[str, Any]) -> Check:
    """Whether what was not refused was answered, and right."""
    failed = [str(text) for text in record["rounds"]["failed"]]
    return Check(trust.LABELS, not failed, "; ".join(failed[:3]) or "nothing but refusals failed")


def _goals(goals: Sequence[Mapping[str, Any]]) -> Table:
    return Table(
        heading="Goals",
        columns=("goal", "verdict", "what"),
        groups=[
            [
                (
                    goal["name"],
                    Cell(goal["verdict"], bad=goal["verdict"] == _MISSED),
                    goal["text"],
                )
                for goal in goals
            ]
        ],
        left=[1, 2],
    )


def _ratios(goals: Sequence[Mapping[str, Any]]) -> Table:
    groups: list[list[Row]] = []
    for goal in goals:
        rows: list[Row] = [
            (
                goal["name"],
                part["what"],
                significant(part["ratio"]["median"]),
                " to ".join(significant(part["ratio"][end]) for end in ("low", "high")),
                f"{part['ratio']['pairs']:,}",
                f"{'at most' if part['at_most'] else 'at least'} {part['threshold']:g}",
            )
            for part in goal["parts"]
        ]
        rows += [(goal["name"], what, "not measured", "-", "-", "-") for what in goal["missing"]]
        groups.append(rows)
    return Table(
        heading="Ratios",
        columns=("goal", "ratio", "median", "95% interval", "pairs", "wanted"),
        groups=groups,
        note=" ".join(f"{goal['name']}: {note}." for goal in goals for note in goal["notes"]),
        left=[1],
    )


def _systems(record: Mapping[str, Any]) -> Table:
    return Table(
        heading="Systems",
        columns=(
            *("system", "kind", "batch", "predictions/s", "p50, ms", "wrong", "near ties"),
            "not measured, because",
        ),
        groups=[
            [
                (
                    system["label"],
                    system["kind"],
                    f"{point['batch_size']:,}",
                    significant(statistics.median(point["rows_per_s"] or [0.0])),
                    milliseconds(statistics.median(point["p50_ns"]) if point["p50_ns"] else None),
                    Cell(f"{point['wrong_labels']:,}", bad=point["wrong_labels"] > 0),
                    f"{point['near_ties']:,}",
                    point["error"] or "",
                )
                for point in system["points"]
            ]
            for system in record["systems"]
        ],
        note="Medians of the rounds. "
        + " ".join(f"{name}: {why}." for name, why in record["skipped"].items()),
        left=[1, 7],
        folded=True,
    )
