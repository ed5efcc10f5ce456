"""Show the scenarios that MLCommons LoadGen drove."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from measure.core.record import read
from measure.core.verdict import Check
from measure.loadgen.logs import VALID
from measure.loadgen.record import LoadgenRecord
from measure.loadgen.runs import Result
from measure.loadgen.table import PERCENTILES, metric, reasons, told_ns
from measure.presentation.format import milliseconds, share, significant
from measure.presentation.looks import Look, looks_of
from measure.report import percentiles, trust
from measure.report.axes import line_of, mark
from measure.report.section import Card, Cell, Plot, Row, Section, Table, Verdict
from measure.report.values import place

_TOLD = ("scenario", "LoadGen says", "result", "of")
_TIMES = tuple(f"p{float(percentile):g}, ms" for percentile in PERCENTILES)
_COUNTED = ("samples", "wrong", "near ties", "accuracy")
_NOTE = (
    "Latencies are LoadGen's: of a query from when it was due; -: too few queries to tell (99% "
    "confidence). Wrong and near ties: labels of the performance run. Accuracy: share of the "
    "examples whose label equals the float64 reference's, in LoadGen's accuracy run."
)


def section(record: Mapping[str, Any]) -> Section:
    """Return what a page shows of a record of LoadGen runs. RecordError if it cannot be read."""
    told = read(record, LoadgenRecord)
    results, label, environment = told.results, told.label, told.environment
    return Section(
        heading="Driven by MLCommons LoadGen",
        sentence=_sentence(told),
        verdicts=_verdicts(results, label, told.conforming, environment),
        checks=[*_labels(results), trust.steal(environment)],
        plots=_plots(results, label, told.settings["rules"]["server_latency_ms"]),
        tables=[_table(results, label), _details(results)],
        cards=_cards(results),
        record=dict(record),
        name="loadgen.json",
    )


def _sentence(told: LoadgenRecord) -> str:
    settings, where = told.settings, place(told.environment)
    experiment, address = settings["experiment"], settings["address"]
    # What is said in a box of its own need not be said again.
    label = f"{told.label}. " if told.conforming else ""
    return (
        f"{label}{experiment['examples']:,} examples of {experiment['features']:,} "
        f"features, sent to {settings['model']} at {address or 'a server of its own'} "
        f"({settings['transport']}){', on ' * bool(where)}{where}."
    )


def _verdicts(
    results: Sequence[Result], label: str, conforming: bool, environment: Mapping[str, Any]
) -> list[Verdict]:
    broken = [result for result in results if not result.good]
    if broken:
        headline = f"{len(broken)} of {len(results)} scenarios failed, or LoadGen or the labels "
        answer = [Verdict("fail", f"{headline}speak against them.", list(_against(broken)))]
    else:
        answer = [Verdict("good", f"All {len(results)} scenarios are VALID; no label is wrong.")]
    doubts = trust.disturbed(environment)
    if doubts or not conforming:
        headline = "Read with care:" if conforming else f"{label}."
        answer.append(Verdict("warn", headline, doubts))
    return answer


def _against(broken: Sequence[Result]) -> Iterator[str]:
    yield from reasons(broken)
    for result in broken:
        if result.performance is not None and result.performance.labels.wrong:
            yield f"{result.scenario}: {result.performance.labels.wrong:,} wrong labels"
        if result.accuracy is not None and result.accuracy.wrong:
            yield f"{result.scenario}, accuracy: {result.accuracy.wrong:,} wrong labels"


def _labels(results: Sequence[Result]) -> list[Check]:
    """Whether all runs came to their end, and every label is right."""
    told = []
    for result in results:
        runs = [result.accuracy, result.performance and result.performance.labels]
        wrong = sum(labels.wrong for labels in runs if labels)
        rows = sum(labels.rows for labels in runs if labels)
        text = f"{result.scenario}: {rows:,} labels, {wrong:,} wrong"
        text += "".join(f"; {mode} failed" for mode in result.failures)
        told.append((not wrong and not result.failures, text))
    return trust.gathered(trust.LABELS, told, "scenarios")


def _looks(results: Sequence[Result]) -> dict[str, Look]:
    return looks_of([result.scenario for result in results])


def _plots(results: Sequence[Result], label: str, bound_ms: float) -> list[Plot]:
    data = []
    for result in results:
        told = list(_told(result))
        if not told:
            continue
        x = [percentiles.stretched(percentile) for percentile, _ in told]
        look = _looks(results)[result.scenario]
        line = line_of(look, x, [time_ns / 1e6 for _, time_ns in told], result.scenario)
        line["customdata"] = [f"p{percentile:g}" for percentile, _ in told]
        data.append(line | {"hovertemplate": "%{customdata}: %{y:.3~g} ms"})
    if not data:
        return []
    figure = percentiles.drawn(data)
    caption = f"{label}. As far as LoadGen tells and queries suffice (99% confidence)."
    if any(line["name"] == "Server" for line in data):
        figure["layout"]["shapes"] = [mark("y", bound_ms, "bound of Server's p99")]
        caption += f" Dashed: the {bound_ms:g} ms that Server's p99 must keep."
    return [Plot("percentiles", figure, caption)]


def _told(result: Result) -> Iterator[tuple[float, int]]:
    """Percentiles that LoadGen tells and its queries support, and nanoseconds."""
    if result.performance is not None:
        for percentile in sorted(result.performance.verdict.percentiles_ns, key=float):
            time_ns = told_ns(result.performance.verdict, percentile)
            if time_ns is not None:
                yield float(percentile), time_ns


def _cards(results: Sequence[Result]) -> list[Card]:
    return [
        Card(
            result.scenario,
            _looks(results)[result.scenario].colour,
            [metric(result.performance.verdict.metric)],
        )
        for result in results
        if result.performance is not None and result.good
    ]


def _table(results: Sequence[Result], label: str) -> Table:
    return Table(
        heading=f"Scenarios ({label})",
        columns=(*_TOLD, *_TIMES, *_COUNTED),
        groups=[[_row(result, _looks(results)[result.scenario]) for result in results]],
        note=_NOTE,
        left=[1, 3],
    )


def _row(result: Result, look: Look) -> Row:
    name = Cell(result.scenario, colour=look.colour)
    accuracy = Cell("-")
    if result.accuracy is not None:
        accuracy = Cell(share(result.accuracy.agreement, 2), bad=result.accuracy.wrong > 0)
    if result.performance is None:
        dashes = ["-"] * (len(_TOLD) + len(_TIMES) + len(_COUNTED) - 3)
        return (name, Cell("failed", bad=True), *dashes, accuracy)
    verdict, labels = result.performance.verdict, result.performance.labels
    return (
        name,
        Cell(verdict.verdict, bad=verdict.verdict != VALID),
        *metric(verdict.metric),
        *(milliseconds(told_ns(verdict, percentile)) for percentile in PERCENTILES),
        f"{labels.rows:,}",
        Cell(f"{labels.wrong:,}", bad=labels.wrong > 0),
        f"{labels.near_ties:,}",
        accuracy,
    )


def _details(results: Sequence[Result]) -> Table:
    return Table(
        heading="What LoadGen was told, and what it lets be claimed",
        columns=(
            "scenario",
            "queries",
            "told to expect, samples/s",
            "told to expect, ms",
            "early stopping lets claim, ms",
            "LoadGen",
        ),
        groups=[
            [
                (
                    result.scenario,
                    f"{result.performance.verdict.queries:,}",
                    significant(result.performance.expected_qps),
                    milliseconds(result.performance.expected_latency_ns),
                    milliseconds(result.performance.verdict.estimate_ns),
                    result.performance.verdict.version,
                )
                for result in results
                if result.performance is not None
            ]
        ],
        note="Early stopping's claim is of the percentile that the scenario is judged by.",
        left=[5],
        folded=True,
    )
