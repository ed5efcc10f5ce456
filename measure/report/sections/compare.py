"""Show a comparison of execution providers."""

from collections.abc import Mapping
from html import escape
from typing import Any

from measure.compare import words
from measure.compare.analysis import Analysis, Pair, analyse
from measure.compare.findings import findings
from measure.compare.plots import LATENCY_LABEL, RATIO_LABEL, points_by_provider
from measure.compare.record import CompareRecord
from measure.compare.runs import Cell as Measurement
from measure.core.comparison import fewest_to_claim
from measure.core.record import read
from measure.core.verdict import Check
from measure.presentation.format import milliseconds, share, significant
from measure.report import charts, trust
from measure.report.axes import Figure, batch_axis, layout_of, line_of, linear_axis, log_axis
from measure.report.section import POINTS, Cell, Linked, Plot, Row, Section, Table, Verdict
from measure.report.values import place
from measure.sweep.plots import looks
from measure.sweep.table import TOO_FEW

_CAPTIONS = {
    "latency": "Lines: median. Bands: median to 90th percentile.",
    "ratio": "Median ratio of the rounds, with its bootstrap interval, 95% for all at once.",
    "throughput": "Rows answered without error over the time of all batches.",
}
_COLUMNS = (
    "mode",
    "batch",
    "execution provider",
    "latency p50, ms",
    "p90, ms",
    "predictions/s",
    "ratio to the first",
    "agree or near tie",
    "wrong",
    "near ties",
    "rows",
    "errors",
    "verdict",
)


def section(record: Mapping[str, Any]) -> Section:
    """Return what a page shows of a comparison's record. RecordError where it cannot be read."""
    told = read(record, CompareRecord)
    analysis = analyse(told.measured)
    measured = analysis.measured
    # A row of each kind: on a wide page the modes stand side by side.
    drawn = {"latency": _latency, "ratio": _ratio, "throughput": _throughput}
    tables = [_points(analysis)]
    if analysis.lines:
        tables.append(_lines(analysis))
    return Section(
        heading="Execution providers side by side",
        sentence=_sentence(told, analysis),
        verdicts=_verdicts(told, analysis),
        checks=[_labels(analysis), *_with_itself(analysis), trust.steal(told.environment)],
        plots=[
            Plot(f"{kind}-{mode}", draw(analysis, mode), _CAPTIONS[kind])
            for kind, draw in drawn.items()
            for mode in measured.modes
        ],
        tables=[*tables, _servers(analysis)],
        record=dict(record),
        name="compare.json",
    )


def _verdicts(told: CompareRecord, analysis: Analysis) -> list[Verdict]:
    environment = told.environment
    found = findings(analysis, environment)
    failures = trust.linked((one for one in found if one.level == "fail"), environment)
    failures += [Linked(f"limit broken: {text}", POINTS) for text in told.broken_limits]
    doubts = trust.linked((one for one in found if one.level != "fail"), environment)
    doubts += [Linked(text, POINTS) for text in words.without_line(analysis)]
    answer = [Verdict("good", "Fastest, by batch size:", list(words.summary(analysis)))]
    if doubts:
        answer.insert(0, Verdict("warn", "Read with care:", doubts))
    if failures:
        answer.insert(0, Verdict("fail", "Failed:", failures))
    return answer


def _sentence(told: CompareRecord, analysis: Analysis) -> str:
    settings, environment = told.settings, told.environment
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
    specs = {provider.label: provider.spec for provider in analysis.measured.providers}
    alike = [pair for pair in analysis.pairs if specs[pair.base] == specs[pair.provider]]
    # Of too few rounds, none could be called different.
    needed = fewest_to_claim(len(analysis.pairs))
    told = [
        (None if pair.ratio.pairs < needed else not pair.differs, _itself(pair)) for pair in alike
    ]
    return trust.gathered(trust.AA, told)


def _itself(pair: Pair) -> str:
    return (
        f"{pair.mode}, batch size {pair.batch_size:,}: {pair.provider} over {pair.base} "
        f"{pair.ratio:.2f}"
    )


def _points(analysis: Analysis) -> Table:
    measured = analysis.measured
    return Table(
        heading="Points",
        part=POINTS,
        columns=_COLUMNS,
        groups=[
            [
                _row(analysis, measured.cell(mode, size, provider.label), number == 0)
                for number, provider in enumerate(measured.providers)
            ]
            for mode in measured.modes
            for size in measured.batch_sizes
        ],
        note=f"{words.HOW_VERDICTS}. {TOO_FEW}. Near ties: rows whose top two scores are too "
        "close for the model's dtype to tell apart.",
        left=[2],
    )


def _row(analysis: Analysis, cell: Measurement, first: bool) -> Row:
    point, pair = cell.point, analysis.to_first(cell)
    return (
        point.mode,
        f"{point.batch_size:,}",
        Cell(cell.provider, colour=_colour(analysis, cell.provider)),
        milliseconds(point.latency_ns.p50),
        milliseconds(point.latency_ns.known_p90),
        significant(point.throughput_per_s),
        f"{pair.ratio:.2f}" if pair else "-",
        share(cell.agreement),
        Cell(f"{point.wrong_labels:,}", bad=point.wrong_labels > 0),
        f"{point.near_ties:,}",
        f"{point.rows:,}",
        Cell(f"{point.errors:,}", bad=point.errors > 0),
        analysis.verdicts[point.mode, point.batch_size] if first else "",
    )


def _lines(analysis: Analysis) -> Table:
    crossings = " ".join(f"{words.meeting_text(meeting)}." for meeting in analysis.meetings)
    return Table(
        heading="Latency as a line",
        columns=(
            "mode",
            "execution provider",
            "alpha, ms",
            "beta, ms a row",
            "half of peak at rows",
            "90% of peak at rows",
            "error, rms",
            "worst",
        ),
        groups=[
            [
                (
                    line.mode,
                    Cell(line.provider, colour=_colour(analysis, line.provider)),
                    words.estimate_text(line.alpha_ns, 1e6),
                    words.estimate_text(line.beta_ns, 1e6),
                    words.estimate_text(line.half_peak_rows),
                    words.estimate_text(line.near_peak_rows),
                    f"{line.fit.rms_error:.1%}",
                    f"{line.fit.worst_error:.1%}",
                )
                for line in analysis.lines
            ]
        ],
        note=f"{crossings} {words.HOW_LINES}.",
        left=[1],
    )


def _servers(analysis: Analysis) -> Table:
    return Table(
        heading="Servers",
        columns=("execution provider", "start-up, ms", "starts", "peak memory, MiB"),
        groups=[
            [
                (
                    Cell(provider.label, colour=_colour(analysis, provider.label)),
                    words.provider_texts(provider)[0],
                    f"{len(provider.start_ups_ns):,}",
                    words.provider_texts(provider)[1],
                )
                for provider in analysis.measured.providers
            ]
        ],
        note=f"{words.HOW_START_UP}.",
    )


def _colour(analysis: Analysis, label: str) -> str:
    points = points_by_provider(analysis, analysis.measured.modes[0])
    return looks(points)[label].colour


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
        paired = [
            (cell.point, pair)
            for cell in analysis.measured.cells
            if (cell.point.mode, cell.provider) == (mode, label)
            and (pair := analysis.to_first(cell)) is not None
        ]
        if not paired:
            continue
        ratios = [pair.ratio for _, pair in paired]
        name = escape(label)
        sizes = [point.batch_size for point, _ in paired]
        line = line_of(look, sizes, [one.median for one in ratios], name)
        line["error_y"] = {
            "type": "data",
            "symmetric": False,
            "array": [one.high - one.median for one in ratios],
            "arrayminus": [one.median - one.low for one in ratios],
        }
        line["customdata"] = [f"{one:.2f}" for one in ratios]
        line["hovertemplate"] = f"<b>{name}</b>: %{{customdata}}<extra></extra>"
        data.append(line)
    title = layout_of(f"Latency over that of {escape(first)}, {mode}")
    axes = {"xaxis": batch_axis(points), "yaxis": linear_axis(RATIO_LABEL)}
    one = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 1, "y1": 1}
    one["line"] = {"color": "#808080", "width": 1.5}
    return {"data": data, "layout": title | axes | {"shapes": [one], "showlegend": True}}
