"""Show the scenarios that MLCommons LoadGen drove."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from measure.core.record import read
from measure.core.verdict import Check
from measure.loadgen.record import LoadgenRecord
from measure.loadgen.runs import Performance, Result
from measure.loadgen.table import HOW, columns, metric, reasons, told_ns
from measure.presentation.columns import Column
from measure.presentation.format import milliseconds, sentence, significant
from measure.presentation.looks import Look, looks_of
from measure.report import percentiles, trust
from measure.report.axes import line_of, mark
from measure.report.section import Card, Plot, Section, Verdict, table_of
from measure.report.values import on

_RUN_COLUMNS: tuple[Column[tuple[str, Performance]], ...] = (
    Column("scenario", lambda row: row[0]),
    Column("queries", lambda row: f"{row[1].verdict.queries:,}"),
    Column("expected, samples/s", lambda row: significant(row[1].expected_qps)),
    Column("expected, ms", lambda row: milliseconds(row[1].expected_latency_ns)),
    Column("early stopping's claim, ms", lambda row: milliseconds(row[1].verdict.estimate_ns)),
    Column("LoadGen", lambda row: row[1].verdict.version, words=True),
)


def section(content: Mapping[str, Any]) -> Section:
    """Return what a page shows of a record of LoadGen runs. RecordError if it cannot be read."""
    record = read(content, LoadgenRecord)
    results, label, environment = record.results, record.label, record.environment
    runs = [(one.scenario, one.performance) for one in results if one.performance is not None]
    return Section(
        heading="Driven by MLCommons LoadGen",
        sentence=_sentence(record),
        verdicts=_verdicts(results, label, record.conforming, environment),
        checks=[*_labels(results), trust.steal(environment)],
        plots=_plots(results, label, record.settings["rules"]["server_latency_ms"]),
        tables=[
            table_of(f"Scenarios ({label})", columns(results), [results], note=sentence(HOW)),
            table_of(
                "What LoadGen expected, and what it claims",
                _RUN_COLUMNS,
                [runs],
                note="Early stopping's claim is of the percentile that the scenario is judged by.",
                folded=True,
            ),
        ],
        cards=_cards(results),
        record=dict(content),
        name="loadgen.json",
    )


def _sentence(record: LoadgenRecord) -> str:
    settings = record.settings
    experiment, address = settings["experiment"], settings["address"]
    # Otherwise a verdict has the label already.
    label = f"{record.label}. " if record.conforming else ""
    return (
        f"{label}{experiment['examples']:,} examples of {experiment['features']:,} "
        f"features, sent to {settings['model']} at {address or 'a server of its own'} "
        f"({settings['transport']}){on(record.environment)}."
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
    if conforming:
        return [*answer, *trust.with_care(environment)]
    return [*answer, Verdict("warn", f"{label}.", trust.disturbed(environment))]


def _against(broken: Sequence[Result]) -> Iterator[str]:
    yield from reasons(broken)
    for result in broken:
        if result.performance is not None and result.performance.labels.wrong:
            yield f"{result.scenario}: {result.performance.labels.wrong:,} wrong labels"
        if result.accuracy is not None and result.accuracy.wrong:
            yield f"{result.scenario}, accuracy: {result.accuracy.wrong:,} wrong labels"


def _labels(results: Sequence[Result]) -> list[Check]:
    """Whether all runs ended, and every label is right."""
    verdicts = []
    for result in results:
        runs = [result.accuracy, result.performance and result.performance.labels]
        wrong = sum(labels.wrong for labels in runs if labels)
        rows = sum(labels.rows for labels in runs if labels)
        text = f"{result.scenario}: {rows:,} labels, {wrong:,} wrong"
        text += "".join(f"; {mode} failed" for mode in result.failures)
        verdicts.append((not wrong and not result.failures, text))
    return trust.gathered(trust.LABELS, verdicts, "scenarios")


def _looks(results: Sequence[Result]) -> dict[str, Look]:
    return looks_of([result.scenario for result in results])


def _plots(results: Sequence[Result], label: str, bound_ms: float) -> list[Plot]:
    data = []
    for result in results:
        times = list(_percentiles(result))
        if not times:
            continue
        x = [percentiles.stretched(percentile) for percentile, _ in times]
        look = _looks(results)[result.scenario]
        line = line_of(look, x, [time_ns / 1e6 for _, time_ns in times], result.scenario)
        line["customdata"] = [f"p{percentile:g}" for percentile, _ in times]
        data.append(line | {"hovertemplate": "%{customdata}: %{y:.3~g} ms"})
    if not data:
        return []
    figure = percentiles.drawn(data)
    caption = f"{label}. As far as LoadGen reports them and queries suffice (99% confidence)."
    if any(line["name"] == "Server" for line in data):
        figure["layout"]["shapes"] = [mark("y", bound_ms, "bound of Server's p99")]
        caption += f" Dashed: the {bound_ms:g} ms that Server's p99 must keep."
    return [Plot("percentiles", figure, caption)]


def _percentiles(result: Result) -> Iterator[tuple[float, int]]:
    """Percentiles that LoadGen reports and its queries support, and nanoseconds."""
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
