"""Make the HTML report of a comparison of execution providers from its JSON record."""

from collections.abc import Mapping
from html import escape
from typing import Any

from client import charts, page
from client import provider_words as words
from client.plots import looks
from client.provider_analysis import Analysis, analyse
from client.provider_findings import findings
from client.provider_plots import LATENCY_LABEL, RATIO_LABEL, points_by_provider
from client.provider_record import from_json
from client.report import Verdict, rows


def render(record: Mapping[str, Any]) -> str:
    """One HTML page that needs nothing else, made from a record and from nothing else.

    Raises `client.record.RecordError` where `from_json` does.
    """
    analysis = analyse(from_json(record))
    measured = analysis.measured
    # A row of each kind: on a wide page the modes stand side by side.
    drawn = {"latency": _latency, "ratio": _ratio, "throughput": _throughput}
    plots = {
        f"{kind}-{mode}": draw(analysis, mode)
        for kind, draw in drawn.items()
        for mode in measured.modes
    }
    captions = {
        "latency": "Lines: median. Bands: median to 90th percentile.",
        "ratio": "Median ratio of the rounds, with its bootstrap interval, 95% for all at once.",
        "throughput": "Rows answered without error over the time of all batches.",
    }
    points = points_by_provider(analysis, measured.modes[0])
    return page.render(
        "compare.html.j2",
        plots,
        captions={name: captions[name.partition("-")[0]] for name in plots},
        verdicts=_verdicts(record, analysis),
        sentence=_sentence(record, analysis),
        analysis=analysis,
        looks=looks(points),
        words=words,
        tables={"Settings": rows(record["settings"]), "Environment": rows(record["environment"])},
        schema=record["schema"],
    )


def _verdicts(record: Mapping[str, Any], analysis: Analysis) -> list[Verdict]:
    found = findings(analysis, record["environment"])
    failures = [finding.text for finding in found if finding.level == "fail"]
    failures += [f"limit broken: {text}" for text in record.get("broken_limits", [])]
    doubts = [finding.text for finding in found if finding.level != "fail"]
    answer = [Verdict("good", "Fastest, by batch size:", list(words.summary(analysis)))]
    if doubts:
        answer.insert(0, Verdict("warn", "Read with care:", doubts))
    if failures:
        answer.insert(0, Verdict("fail", "Failed:", failures))
    return answer


def _sentence(record: Mapping[str, Any], analysis: Analysis) -> str:
    settings, environment = record["settings"], record["environment"]
    names = ", ".join(provider.label for provider in analysis.measured.providers)
    shape = ""
    if settings.get("classes") and settings.get("features"):
        shape = f" on argmax(Wx) with {settings['classes']:,} classes"
        shape += f", {settings['features']:,} features"
    places = [environment.get("cpu_model"), environment.get("cores")]
    where = f", {places[0]}, {places[1]} cores" if all(places) else ""
    return (
        f"Execution providers {names}{shape}, in {settings.get('rounds')} interleaved rounds"
        f"{where}. Every ratio is to {analysis.measured.providers[0].label}."
    )


def _latency(analysis: Analysis, mode: str) -> charts.Figure:
    points = points_by_provider(analysis, mode)
    figure = charts.latency(points)
    layout = charts.layout_of(f"Latency, {mode}") | {"yaxis": charts.log_axis(LATENCY_LABEL)}
    return figure | {"layout": figure["layout"] | layout}


def _throughput(analysis: Analysis, mode: str) -> charts.Figure:
    figure = charts.throughput(points_by_provider(analysis, mode))
    return figure | {"layout": figure["layout"] | charts.layout_of(f"Throughput, {mode}")}


def _ratio(analysis: Analysis, mode: str) -> charts.Figure:
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
        line = charts.line_of(look, [p for p, _ in paired], [r.median for r in ratios], name)
        line["error_y"] = {
            "type": "data",
            "symmetric": False,
            "array": [one.high - one.median for one in ratios],
            "arrayminus": [one.median - one.low for one in ratios],
        }
        line["customdata"] = [words.ratio_text(one) for one in ratios]
        line["hovertemplate"] = f"<b>{name}</b>: %{{customdata}}<extra></extra>"
        data.append(line)
    title = charts.layout_of(f"Latency over that of {escape(first)}, {mode}")
    axes = {"xaxis": charts.batch_axis(points), "yaxis": charts.linear_axis(RATIO_LABEL)}
    one = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 1, "y1": 1}
    one["line"] = {"color": "#808080", "width": 1.5}
    return {"data": data, "layout": title | axes | {"shapes": [one], "showlegend": True}}
