"""Show a comparison of execution providers."""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from measure.compare import table, words
from measure.compare.analysis import Analysis, Pair, analyse
from measure.compare.findings import findings
from measure.compare.plots import LATENCY_LABEL, RATIO_LABEL, points_by_provider
from measure.compare.record import CompareRecord
from measure.core.comparison import fewest_to_claim
from measure.core.record import read
from measure.core.verdict import Check
from measure.report import charts, trust
from measure.report.axes import INK, Figure, batch_axis, layout_of, line_of, linear_axis, log_axis
from measure.report.section import POINTS, Linked, Plot, Section, Table, Verdict, table_of
from measure.report.values import place
from measure.sweep.plots import looks
from measure.sweep.table import TOO_FEW

_CAPTIONS = {
    "latency": "Lines: median. Bands: median to 90th percentile.",
    "ratio": "Median ratio of the rounds, with its bootstrap interval, 95% for all at once.",
    "throughput": "Rows answered without error over the time of all batches.",
}


def section(content: Mapping[str, Any]) -> Section:
    """Return what a page shows of a comparison's record. RecordError where it cannot be read."""
    record = read(content, CompareRecord)
    analysis = analyse(record.measured)
    measured = analysis.measured
    # One row per kind: on a wide page the modes are side by side.
    drawn = {"latency": _latency, "ratio": _ratio, "throughput": _throughput}
    return Section(
        heading="Execution providers side by side",
        sentence=_sentence(record, analysis),
        verdicts=_verdicts(record, analysis),
        checks=[_labels(analysis), *_with_itself(analysis), trust.steal(record.environment)],
        plots=[
            Plot(f"{kind}-{mode}", draw(analysis, mode), _CAPTIONS[kind])
            for kind, draw in drawn.items()
            for mode in measured.modes
        ],
        tables=list(_tables(analysis)),
        record=dict(content),
        name="compare.json",
    )


def _verdicts(record: CompareRecord, analysis: Analysis) -> list[Verdict]:
    environment = record.environment
    failures, doubts = trust.split(findings(analysis, environment), environment)
    failures += [Linked(f"limit broken: {text}", POINTS) for text in record.broken_limits]
    doubts += [Linked(text, POINTS) for text in words.without_line(analysis)]
    answer = [Verdict("good", "Fastest, by batch size:", list(words.summary(analysis)))]
    if doubts:
        answer.insert(0, Verdict("warn", "Read with care:", doubts))
    if failures:
        answer.insert(0, Verdict("fail", "Failed:", failures))
    return answer


def _sentence(record: CompareRecord, analysis: Analysis) -> str:
    settings, environment = record.settings, record.environment
    names = ", ".join(provider.label for provider in analysis.measured.providers)
    shape = ""
    if settings.get("classes") and settings.get("features"):
        shape = f" on argmax(Wx) with {settings['classes']:,} classes"
        shape += f", {settings['features']:,} features"
    where = place(environment)
    return (
        f"Execution providers {names}{shape}, in {settings.get('rounds')} interleaved rounds"
        f"{', ' * bool(where)}{where}. Every ratio is to {analysis.measured.providers[0].label}."
    )


def _labels(analysis: Analysis) -> Check:
    """Whether requests were answered, and the first provider's labels are right.

    Another provider may round more; its labels are part of what is compared.
    """
    cells = analysis.measured.cells
    errors = sum(cell.point.errors for cell in cells)
    first = analysis.measured.providers[0].label
    wrong = sum(cell.point.wrong_labels for cell in cells if cell.provider == first)
    text = f"{errors:,} failed requests; {wrong:,} wrong labels of {first}"
    return Check(trust.LABELS, not errors and not wrong, text)


def _with_itself(analysis: Analysis) -> list[Check]:
    """Whether a provider that was given twice differs from itself anywhere."""
    specs = {
        provider.label: (provider.spec, provider.options)
        for provider in analysis.measured.providers
    }
    alike = [pair for pair in analysis.pairs if specs[pair.base] == specs[pair.provider]]
    # With too few rounds, no difference could be claimed.
    needed = fewest_to_claim(len(analysis.pairs))
    verdicts = [
        (None if pair.ratio.pairs < needed else not pair.differs, _itself(pair)) for pair in alike
    ]
    return trust.gathered(trust.AA, verdicts)


def _itself(pair: Pair) -> str:
    return (
        f"{pair.mode}, batch size {pair.batch_size:,}: {pair.provider} over {pair.base} "
        f"{pair.ratio:.2f}"
    )


def _tables(analysis: Analysis) -> Iterator[Table]:
    measured = analysis.measured
    yield table_of(
        "Points",
        table.point_columns(analysis),
        [group for mode in measured.modes for group in table.point_groups(analysis, mode)],
        note=f"{words.HOW_VERDICTS}. {TOO_FEW}. Near ties: rows whose top two scores are too "
        "close for the model's dtype to tell apart.",
        part=POINTS,
    )
    if analysis.lines:
        crossings = " ".join(f"{words.meeting_text(meeting)}." for meeting in analysis.meetings)
        yield table_of(
            "Latency as a line",
            table.line_columns(analysis),
            [analysis.lines],
            note=f"{crossings} {words.HOW_LINES}.",
        )
    yield table_of(
        "Servers",
        table.server_columns(analysis),
        [measured.providers],
        note=f"{words.HOW_START_UP}.",
    )


def _latency(analysis: Analysis, mode: str) -> Figure:
    points = points_by_provider(analysis, mode)
    figure = charts.latency(points)
    layout = layout_of(f"Latency, {mode}") | {"yaxis": log_axis(LATENCY_LABEL)}
    return figure | {"layout": figure["layout"] | layout}


def _throughput(analysis: Analysis, mode: str) -> Figure:
    figure = charts.throughput(points_by_provider(analysis, mode))
    return figure | {"layout": figure["layout"] | layout_of(f"Throughput, {mode}")}


def _ratio(analysis: Analysis, mode: str) -> Figure:
    points = points_by_provider(analysis, mode)
    first = analysis.measured.providers[0].label
    data = []
    for label, look in looks(points).items():
        pairs = analysis.over_first(mode, label)
        if not pairs:
            continue
        ratios = [pair.ratio for pair in pairs]
        name = escape(label)
        line = line_of(look, [pair.batch_size for pair in pairs], [r.median for r in ratios], name)
        line["error_y"] = {
            "type": "data",
            "symmetric": False,
            "array": [ratio.high - ratio.median for ratio in ratios],
            "arrayminus": [ratio.median - ratio.low for ratio in ratios],
        }
        line["customdata"] = [f"{ratio:.2f}" for ratio in ratios]
        line["hovertemplate"] = f"<b>{name}</b>: %{{customdata}}<extra></extra>"
        data.append(line)
    title = layout_of(f"Latency over that of {escape(first)}, {mode}")
    axes = {"xaxis": batch_axis(points), "yaxis": linear_axis(RATIO_LABEL)}
    level = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 1, "y1": 1}
    level["line"] = {"color": INK, "width": 1.5}
    return {"data": data, "layout": title | axes | {"shapes": [level], "showlegend": True}}
