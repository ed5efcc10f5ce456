"""Show a load in closed and open loops, and the search for a rate within a bound."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from measure.core.record import read
from measure.core.stages import RECEIVE_UNKNOWN
from measure.core.verdict import Check, word
from measure.engine.bisection import Found
from measure.load import over_time
from measure.load.record import LoadRecord, Tried
from measure.load.summary import LoadPoint
from measure.load.table import (
    CLIENT_COLUMNS,
    CLIENT_NOTE,
    LOOPS,
    SERVER_COLUMNS,
    SERVER_NOTE,
    bounds,
    name,
    observed,
    of_each_server,
    point_columns,
)
from measure.presentation.columns import Column
from measure.presentation.format import flagged, milliseconds, sentence, significant
from measure.presentation.looks import colour_of
from measure.report import load_charts, over_time_charts, percentiles, stages, trust
from measure.report.section import (
    CHECKS,
    POINTS,
    Card,
    Linked,
    Plot,
    Section,
    Table,
    Verdict,
    table_of,
)
from measure.report.values import on
from measure.servers import table as servers_table
from measure.slo.table import MET

_CHECK_COLUMNS: tuple[Column[tuple[LoadPoint, Check]], ...] = (
    Column("load", lambda row: name(row[0])),
    Column("check", lambda row: row[1].name, words=True),
    Column(
        "verdict", lambda row: flagged(word(row[1].passed), bad=row[1].passed is False), words=True
    ),
    Column("what was seen", lambda row: row[1].text, words=True),
)
# The most points that a banner lists; it counts the others.
MOST_SHOWN = 6


def section(content: Mapping[str, Any]) -> Section:
    """Return what a page shows of the record of a load or of a search. RecordError."""
    record = read(content, LoadRecord)
    points, searched = record.points, record.found is not None
    # A search exceeds the capacity of the server on purpose.
    judged = points
    if searched:
        judged = [p for p, trial in zip(points, record.trials or [], strict=True) if trial.met]
    checked = [[(point, check) for check in point.checks] for point in points]
    distributions = [
        percentiles.of_histogram(name(p), _colour(p), p.latency_histogram) for p in points
    ]
    return Section(
        heading=f"Highest rate, p99 within {_bound(record):g} ms" if searched else "Under load",
        sentence=_sentence(record),
        verdicts=[
            *([_answer(record.found, record.answer)] if record.found else _verdicts(points)),
            *trust.with_care(record.environment),
        ],
        checks=_checks(judged, record.unchecked_because is None),
        plots=_plots(points, distributions, _bound(record) if searched else None),
        tables=[
            _points(points, record.trials),
            *_client(points),
            *_server(points),
            *_each_server(points),
            table_of("Checks of every point", _CHECK_COLUMNS, checked, folded=True, part=CHECKS),
            percentiles.histograms(distributions, "load"),
        ],
        cards=[] if searched else _cards(points),
        record=dict(content),
        name="slo.json" if searched else "load.json",
    )


def _plots(
    points: Sequence[LoadPoint],
    distributions: Sequence[percentiles.Distribution],
    bound_ms: float | None,
) -> list[Plot]:
    drawn = []
    replayed = over_time.replayed(points)
    over_load = [point for point in points if point.asked.schedule is None]
    for loop in dict.fromkeys(point.asked.loop for point in over_load):
        chosen = sorted((p for p in over_load if p.asked.loop == loop), key=lambda p: p.asked.level)
        found = load_charts.knees(chosen)
        explained = f"{LOOPS[loop].capitalize()}. Hollow: points that are not valid."
        knees = [load_charts.knee_text(mode, knee) for mode, knee in found.items()]
        drawn += [
            Plot(
                f"latency-{loop}",
                load_charts.latency(chosen, loop, found, bound_ms),
                " ".join([explained, *knees]),
            ),
            Plot(
                f"throughput-{loop}",
                load_charts.throughput(chosen, loop),
                _answered(chosen, loop),
            ),
        ]
    if replayed:
        drawn += [
            Plot(
                "rates-over-time",
                over_time_charts.rates(replayed),
                "Of each window. Dotted: as many as were due.",
            ),
            Plot(
                "latency-over-time",
                over_time_charts.latency(replayed),
                f"Of the requests that were answered in each window. {LOOPS['open'].capitalize()}.",
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
                f"Means over the requests. {stages.OVERLAP} Network: the rest between send and "
                "answer, on the wire and in the kernel until a thread reads. Client decode comes "
                "after the time that latency counts." + _unknown(points),
            )
        )
    return drawn


def _answered(points: Sequence[LoadPoint], loop: str) -> str:
    """Explain the plot of throughput."""
    text = "Requests answered without error."
    if loop == "open":
        text += " Dotted: as many as were offered."
    if any(point.goodput is not None for point in points):
        text += " Dashed: goodput, those answered within the bound."
    return text


def _unknown(points: Sequence[LoadPoint]) -> str:
    """A sentence about stages that a server does not report, if there is one to say."""
    splits = [point.split for point in points if point.split is not None]
    if all(split.told_by is None or split.server_receive_ns is not None for split in splits):
        return ""
    return f" Here {RECEIVE_UNKNOWN}, so that is in network, too."


def _verdicts(points: Sequence[LoadPoint]) -> list[Verdict]:
    broken = sum(not point.valid for point in points)
    if not points:
        return [Verdict("fail", "Nothing was measured.")]
    if not broken:
        return [Verdict("good", f"All {len(points)} points are valid.")]
    headline = f"{broken} of {len(points)} points are not valid: do not trust these."
    findings = [_broken(point) for point in points if not point.valid]
    if broken > MOST_SHOWN:
        more = f"{broken - MOST_SHOWN + 1} more of the {broken}"
        findings[MOST_SHOWN - 1 :] = [Linked(f"{more}: their checks say why", CHECKS)]
    return [Verdict("fail", headline, findings)]


def _broken(point: LoadPoint) -> Linked:
    failed = [f"{check.name}: {check.text}" for check in point.checks if check.passed is False]
    return Linked(f"{name(point)}: {'; '.join(failed)}", CHECKS)


def _answer(found: Found, answer: str) -> Verdict:
    known = found.met is not None and found.untold is None
    return Verdict("good" if known else "fail", answer)


def _bound(record: LoadRecord) -> float:
    return float(record.settings["p99_ms"])


def _checks(points: Sequence[LoadPoint], labels_known: bool) -> list[Check]:
    """Return what the points' own checks say; without known labels, those are not measured."""
    answer = []
    for own, question in trust.OF_A_LOAD.items():
        verdicts = [
            (check.passed, f"{name(point)}: {check.text}")
            for point in points
            for check in point.checks
            if check.name == own
        ]
        if own == "errors" and not labels_known:
            verdicts = [(False if passed is False else None, text) for passed, text in verdicts]
        answer += trust.gathered(question, verdicts)
    return answer


def _sentence(record: LoadRecord) -> str:
    settings = record.settings
    loops = " and ".join(dict.fromkeys(_shape(point) for point in record.points))
    rows, processes = settings["rows"], settings["processes"]
    text = (
        f"Requests of {rows} row{'s' * (rows != 1)} to {settings['model']}, in "
        f"{loops or 'no loop'}, from {processes} process{'es' * (processes != 1)}"
        f"{on(record.environment)}."
    )
    unchecked = record.unchecked_because
    return text if unchecked is None else f"{text} Labels are unchecked: {unchecked}."


def _shape(point: LoadPoint) -> str:
    asked = point.asked
    if asked.schedule is not None:
        return f"an open loop by the schedule {asked.schedule}"
    if asked.ramp is not None:
        return f"an {asked.loop} loop by the ramp {asked.ramp}".replace("an closed", "a closed")
    return f"{asked.loop} loops"


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


def _points(points: Sequence[LoadPoint], trials: Sequence[Tried] | None) -> Table:
    table = table_of(
        "Points",
        point_columns(points),
        [points],
        note="Percentiles are nearest rank; -: too few samples to tell (99% confidence)"
        f"{bounds(points)}.",
        part=POINTS,
    )
    if trials is None:
        return table
    rows = zip(table.groups[0], trials, strict=True)
    return replace(
        table,
        columns=[*table.columns, "met", "because"],
        groups=[[(*row, MET[trial.met], trial.because) for row, trial in rows]],
        left=[len(table.columns) + 1],
    )


def _client(points: Sequence[LoadPoint]) -> list[Table]:
    if not any(point.from_send_ns for point in points):
        return []
    note = sentence(CLIENT_NOTE)
    return [table_of("The client's own part", CLIENT_COLUMNS, [points], note=note)]


def _server(points: Sequence[LoadPoint]) -> list[Table]:
    rows = observed(points)
    if not rows:
        return []
    note = sentence(SERVER_NOTE)
    return [table_of("The server meanwhile", SERVER_COLUMNS, [rows], note=note)]


def _each_server(points: Sequence[LoadPoint]) -> list[Table]:
    groups = of_each_server(points)
    if not groups:
        return []
    note = sentence(servers_table.NOTE)
    return [table_of("The part of each server", servers_table.COLUMNS, groups, note=note)]


def _colour(point: LoadPoint) -> str:
    return colour_of(point.asked.mode)
