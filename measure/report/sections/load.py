"""Show a load in closed and open loops, and the search for a rate within a bound."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from measure.core.record import read
from measure.core.verdict import Check, word
from measure.engine.bisection import Found
from measure.load.record import LoadRecord, Tried
from measure.load.summary import LoadPoint
from measure.load.table import CLIENT_COLUMNS, CLIENT_NOTE, LOOPS, client_cells, name
from measure.presentation.format import milliseconds, significant
from measure.report import load_charts, percentiles, stages, trust
from measure.report.section import (
    CHECKS,
    POINTS,
    Card,
    Cell,
    Linked,
    Plot,
    Row,
    Section,
    Table,
    Verdict,
)
from measure.report.values import place
from measure.slo.table import MET

_COLUMNS = (
    "load",
    "requests/s",
    "rows/s",
    "under way",
    "p50, ms",
    "p90, ms",
    "p95, ms",
    "p99, ms",
    "p99.9, ms",
    "max, ms",
    "send lag p99, ms",
    "samples",
    "errors",
    "wrong",
    "valid",
)
# Points that a banner lists before it says how many more there are.
MOST_TOLD = 6


def section(record: Mapping[str, Any]) -> Section:
    """Return what a page shows of the record of a load or of a search. RecordError."""
    told = read(record, LoadRecord)
    points, searched = told.points, told.found is not None
    # A search goes over what the server can take on purpose.
    judged = points
    if searched:
        judged = [p for p, trial in zip(points, told.trials or [], strict=True) if trial.met]
    disturbed = trust.disturbed(told.environment)
    distributions = [
        percentiles.of_histogram(name(p), _colour(p), p.latency_histogram) for p in points
    ]
    return Section(
        heading=f"Highest rate, p99 within {_bound(told):g} ms" if searched else "Under load",
        sentence=_sentence(told),
        verdicts=[
            *([_answer(told.found, told.answer)] if told.found else _verdicts(points)),
            *([Verdict("warn", "Read with care:", disturbed)] if disturbed else []),
        ],
        checks=_checks(judged, told.unchecked_because is None),
        plots=_plots(points, distributions, _bound(told) if searched else None),
        tables=[
            _table(points, told.trials),
            *([_client(points)] if any(point.from_send_ns for point in points) else []),
            _checked(points),
            percentiles.histograms(distributions, "load"),
        ],
        cards=[] if searched else _cards(points),
        record=dict(record),
        name="slo.json" if searched else "load.json",
    )


def _plots(
    points: Sequence[LoadPoint],
    distributions: Sequence[percentiles.Distribution],
    bound_ms: float | None,
) -> list[Plot]:
    drawn = []
    for loop in dict.fromkeys(point.asked.loop for point in points):
        chosen = sorted((p for p in points if p.asked.loop == loop), key=lambda p: p.asked.level)
        found = load_charts.knees(chosen)
        told = f"{LOOPS[loop].capitalize()}. Hollow: points that are not valid."
        knees = [load_charts.knee_text(mode, knee) for mode, knee in found.items()]
        drawn += [
            Plot(
                f"latency-{loop}",
                load_charts.latency(chosen, loop, found, bound_ms),
                " ".join([told, *knees]),
            ),
            Plot(
                f"throughput-{loop}",
                load_charts.throughput(chosen, loop),
                "Requests answered without error. Dotted: as many as were offered."
                if loop == "open"
                else "Requests answered without error.",
            ),
        ]
    curves = percentiles.curves(distributions)
    if curves is not None:
        drawn.append(
            Plot("percentiles", curves, "As far as samples suffice to tell (99% confidence).")
        )
    staged = [(name(p), stages.split(asdict(p.split))) for p in points if p.split is not None]
    fall = stages.waterfall(staged)
    if fall is not None:
        drawn.append(
            Plot(
                "waterfall",
                fall,
                "Means over the requests. Network: the rest between send and answer, gRPC's part "
                "too. Receive is decoding the answer, after the time that latency counts.",
            )
        )
    return drawn


def _verdicts(points: Sequence[LoadPoint]) -> list[Verdict]:
    broken = sum(not point.valid for point in points)
    if not points:
        return [Verdict("fail", "Nothing was measured.")]
    if not broken:
        return [Verdict("good", f"All {len(points)} points are valid.")]
    headline = f"{broken} of {len(points)} points are not valid: do not trust these."
    told = [_broken(point) for point in points if not point.valid]
    if len(told) > MOST_TOLD:
        more = f"{len(told) - MOST_TOLD + 1} more of the {len(told)}"
        told = [*told[: MOST_TOLD - 1], Linked(f"{more}: their checks say why", CHECKS)]
    return [Verdict("fail", headline, told)]


def _broken(point: LoadPoint) -> Linked:
    failed = [f"{check.name}: {check.text}" for check in point.checks if check.passed is False]
    return Linked(f"{name(point)}: {'; '.join(failed)}", CHECKS)


def _answer(found: Found, answer: str) -> Verdict:
    known = found.met is not None and found.untold is None
    return Verdict("good" if known else "fail", answer)


def _bound(told: LoadRecord) -> float:
    return float(told.settings["p99_ms"])


def _checks(points: Sequence[LoadPoint], labels_known: bool) -> list[Check]:
    """Return what the points' own checks say; without known labels, those are not measured."""
    answer = []
    for own, question in trust.OF_A_LOAD.items():
        told = [
            (check.passed, f"{name(point)}: {check.text}")
            for point in points
            for check in point.checks
            if check.name == own
        ]
        if own == "errors" and not labels_known:
            told = [(False if passed is False else None, text) for passed, text in told]
        answer += trust.gathered(question, told)
    return answer


def _sentence(told: LoadRecord) -> str:
    settings = told.settings
    loops = " and ".join(dict.fromkeys(f"{point.asked.loop} loops" for point in told.points))
    where = place(told.environment)
    rows, processes = settings["rows"], settings["processes"]
    text = (
        f"Requests of {rows} row{'s' * (rows != 1)} to {settings['model']}, in "
        f"{loops or 'no loop'}, from {processes} process{'es' * (processes != 1)}"
        f"{', on ' * bool(where)}{where}."
    )
    unchecked = told.unchecked_because
    return text if unchecked is None else f"{text} Labels are unchecked: {unchecked}."


def _cards(points: Sequence[LoadPoint]) -> list[Card]:
    cards = []
    for mode, look in load_charts.looks(points).items():
        valid = [point for point in points if point.asked.mode == mode and point.valid]
        if not valid:
            continue
        most = max(valid, key=lambda point: point.requests_per_s)
        facts = [(significant(most.requests_per_s), f"requests/s at {name(most)}")]
        facts.append((milliseconds(most.latency_ns.p99), "ms p99 there"))
        cards.append(Card(mode, look.colour, facts))
    return cards


def _table(points: Sequence[LoadPoint], trials: Sequence[Tried] | None) -> Table:
    rows = [_row(point) for point in points]
    columns: tuple[str, ...] = _COLUMNS
    if trials is not None:
        columns = (*columns, "met", "because")
        rows = [
            (*row, MET[trial.met], trial.because) for row, trial in zip(rows, trials, strict=True)
        ]
    return Table(
        heading="Points",
        part=POINTS,
        columns=columns,
        groups=[rows],
        note="Percentiles are nearest rank; -: too few samples to tell (99% confidence).",
        left=[] if trials is None else [len(columns) - 1],
    )


def _colour(point: LoadPoint) -> str:
    return load_charts.looks([point])[point.asked.mode].colour


def _row(point: LoadPoint) -> Row:
    told = point.latency_ns
    errors = sum(point.errors.values())
    kinds = ", ".join(f"{count:,} {code}" for code, count in sorted(point.errors.items()))
    wrong = point.wrong_labels
    return (
        Cell(name(point), colour=_colour(point)),
        significant(point.requests_per_s),
        significant(point.rows_per_s),
        significant(point.concurrency),
        *map(milliseconds, (told.p50, told.p90, told.p95, told.p99, told.p99_9, told.max)),
        milliseconds(point.send_lag_ns.p99),
        f"{told.samples:,}",
        Cell(kinds or "0", bad=errors > 0),
        Cell("-" if wrong is None else f"{wrong:,}", bad=bool(wrong)),
        Cell("yes" if point.valid else "NO", bad=not point.valid),
    )


def _client(points: Sequence[LoadPoint]) -> Table:
    return Table(
        heading="The client's own part",
        columns=("load", *(column.replace("\n", ", ") for column in CLIENT_COLUMNS)),
        groups=[[(name(point), *client_cells(point)) for point in points]],
        note=f"{CLIENT_NOTE[0].upper()}{CLIENT_NOTE[1:]}.",
    )


def _checked(points: Sequence[LoadPoint]) -> Table:
    return Table(
        heading="Checks of every point",
        part=CHECKS,
        columns=("load", "check", "verdict", "what was seen"),
        groups=[
            [
                (
                    name(point),
                    check.name,
                    Cell(word(check.passed), bad=check.passed is False),
                    check.text,
                )
                for check in point.checks
            ]
            for point in points
        ],
        left=[1, 2, 3],
        folded=True,
    )
