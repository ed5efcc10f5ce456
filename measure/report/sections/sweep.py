"""Show a sweep over batch sizes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from measure.core.record import read
from measure.core.stages import RECEIVE_UNKNOWN
from measure.core.verdict import Check, Finding
from measure.presentation.format import milliseconds, significant
from measure.presentation.format import sentence as sentence_of
from measure.report import charts, percentiles, stages, trust
from measure.report.section import POINTS, Card, Plot, Section, Verdict, table_of
from measure.report.values import place
from measure.servers import table as servers_table
from measure.sweep.plots import looks, of_mode
from measure.sweep.record import SweepRecord
from measure.sweep.summary import Point, warnings
from measure.sweep.table import COLUMNS, TOO_FEW, of_each_server

_NOTE = (
    "Percentiles are nearest rank: the smallest measured value that at least p percent of the "
    f"samples do not exceed; {TOO_FEW}. Samples with errors are counted under errors only. Batch "
    "rows: the mean number of rows the server ran together. Near ties: rows whose top two scores "
    "are too close for the model's precision to tell apart."
)
_UNKNOWN = f"Here {RECEIVE_UNKNOWN}, so that is in other, too."
_CAPTIONS = {
    "latency": "Lines: median time to the first prediction. Bands: median to 90th percentile, "
    "where samples suffice to tell one.",
    "throughput": "Rows answered without error over the time of all batches, sent one after "
    "another.",
    "first-and-last": "One streamed batch. Solid: median time to the first prediction. Dotted: to "
    "the last. Between them the client can work already.",
    "stages": "Means of one request. Send and answer receive are measured by the client, the rest "
    f"by the server. {stages.OVERLAP} Other is the rest of the latency: network, encoding and "
    "sending the answer.",
    "percentiles": "Time to the last prediction, as far as there are samples enough to tell (99% "
    "confidence), at the batch size of each mode that has most of them.",
}


def section(content: Mapping[str, Any]) -> Section:
    """Return what a page shows of a sweep's record. RecordError where it cannot be read."""
    record = read(content, SweepRecord)
    points, settings, environment = record.points, record.settings, record.environment
    modes = looks(points)
    ordered = [point for mode in modes for point in of_mode(points, mode)]
    figures = {
        "latency": charts.latency(points),
        "throughput": charts.throughput(points),
        "first-and-last": charts.first_and_last(points),
        "stages": stages.shares(points),
        "percentiles": percentiles.curves(list(_best_known(ordered))),
    }
    captions = _CAPTIONS
    if any(p.stages.server_receive_ns is None for p in of_mode(points, "unary") if p.stages):
        captions = _CAPTIONS | {"stages": f"{_CAPTIONS['stages']} {_UNKNOWN}"}
    spreads = [_distribution(point) for point in ordered]
    groups = [of_mode(points, mode) for mode in modes]
    tables = [table_of("Points", COLUMNS, groups, note=_NOTE, part=POINTS)]
    if of_servers := of_each_server(ordered):
        parts = servers_table.COLUMNS
        tables.append(
            table_of(
                "The part of each server", parts, of_servers, note=sentence_of(servers_table.NOTE)
            )
        )
    if any(spread.samples for spread in spreads):
        tables.append(percentiles.histograms(spreads, "mode, batch size"))
    return Section(
        heading="Batch size sweep",
        sentence=sentence(points, settings, environment),
        verdicts=verdicts(points, _findings(record), environment, _wire(settings)),
        checks=[_labels(points), trust.steal(environment)],
        plots=[Plot(name, drawn, captions[name]) for name, drawn in figures.items() if drawn],
        tables=tables,
        cards=[_best(of_mode(points, mode), look.colour) for mode, look in modes.items()],
        record=dict(content),
        name="sweep.json",
    )


def verdicts(
    points: Sequence[Point],
    findings: Sequence[Finding],
    environment: Mapping[str, Any],
    wire: str | None = None,
) -> list[Verdict]:
    """Verdicts in the order of their weight, at least one.

    `wire`: what the examples were rounded to on their way, if they were.
    """
    failures, doubts = trust.split(findings, environment)
    answer = []
    if failures:
        answer.append(Verdict("fail", "Failed: do not trust these numbers.", failures))
    else:
        answer.append(Verdict("warn" if doubts else "good", _agreement(points, wire), []))
    if doubts:
        answer.append(Verdict("warn", "Read with care.", doubts))
    # One amber box, not two.
    if len(answer) == 2 and not failures:
        return [Verdict("warn", f"{answer[0].headline} Read with care:", doubts)]
    return answer


def sentence(
    points: Sequence[Point], settings: Mapping[str, Any], environment: Mapping[str, Any]
) -> str:
    """What was measured, in one sentence; what the record does not say is left out."""
    sizes = sorted({point.batch_size for point in points})
    of = ""
    classes, features = settings.get("classes"), settings.get("features")
    if classes and features:
        of = f" of argmax(Wx) with {classes:,} classes, {features:,} features"
    if settings.get("dtype"):
        of += f" in {settings['dtype']}"
    if _wire(settings):
        of += f", sent as {_wire(settings)}"
    swept = "no batch size"
    if sizes:
        swept = f"{len(sizes)} batch sizes from {sizes[0]:,} to {sizes[-1]:,}"
        swept = f"batch size {sizes[0]:,}" if len(sizes) == 1 else swept
    providers = sorted({point.stages.execution_provider for point in points if point.stages})
    where = ", ".join(filter(None, [place(environment), *providers]))
    return (
        f"Latency and throughput{of}, over {_listed(list(looks(points)))}, at {swept}"
        + (f", on {where}" if where else "")
        + "."
    )


def _findings(record: SweepRecord) -> list[Finding]:
    judged = warnings(record.points, record.environment)
    return judged + [finding for finding in record.findings if finding not in judged]


def _wire(settings: Mapping[str, Any]) -> str | None:
    wire = settings.get("wire")
    return None if wire == settings.get("dtype") else wire


def _agreement(points: Sequence[Point], wire: str | None) -> str:
    total = sum(point.rows for point in points)
    differ = sum(round((1 - p.agreement) * p.rows) for p in points if p.agreement is not None)
    if not differ:
        return f"All {total:,} labels agree with the float64 reference."
    return (
        f"No wrong label: {total - differ:,} of {total:,} labels agree with the float64 "
        f"reference, the other {differ:,} are near ties"
        + (f" or were changed by rounding to {wire}." if wire else ".")
    )


def _labels(points: Sequence[Point]) -> Check:
    errors, wrong = sum(p.errors for p in points), sum(p.wrong_labels for p in points)
    if not points:
        return Check(trust.LABELS, None, "nothing was measured")
    text = f"{sum(p.rows for p in points):,} labels, {wrong:,} wrong; {errors:,} failed requests"
    return Check(trust.LABELS, not errors and not wrong, text)


def _best(points: Sequence[Point], colour: str) -> Card:
    """Highest throughput and shortest wait of one mode; `-` where it failed."""
    fastest = max(points, key=lambda point: point.throughput_per_s)
    timed = [(p.first_prediction_ns.p50, p) for p in points if p.first_prediction_ns.p50]
    wait_ns, soonest = min(timed, key=lambda pair: pair[0], default=(None, None))
    waited_at = "-" if soonest is None else f"{soonest.batch_size:,}"
    return Card(
        heading=fastest.mode,
        colour=colour,
        facts=[
            (
                significant(fastest.throughput_per_s),
                f"predictions/s at batch size {fastest.batch_size:,}",
            ),
            (milliseconds(wait_ns), f"ms to first prediction at batch size {waited_at}"),
        ],
    )


def _best_known(points: Sequence[Point]) -> Iterator[percentiles.Distribution]:
    """Return of each mode the point with most samples."""
    for mode in dict.fromkeys(point.mode for point in points):
        most = max(of_mode(points, mode), key=lambda point: len(point.latencies_ns))
        yield _distribution(most)


def _distribution(point: Point) -> percentiles.Distribution:
    return percentiles.of_times(_name(point), looks([point])[point.mode].colour, point.latencies_ns)


def _name(point: Point) -> str:
    return f"{point.mode}, {point.batch_size:,}"


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]])) or "no mode"
