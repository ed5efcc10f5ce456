"""Describe the interactive plots of the report as plotly figures."""

from collections.abc import Sequence
from html import escape
from typing import Any

from client.plots import (
    BATCH_LABEL,
    LATENCY_LABEL,
    LATENCY_TITLE,
    THROUGHPUT_LABEL,
    THROUGHPUT_TITLE,
    Look,
    batch_ticks,
    looks,
    of_mode,
)
from client.summary import Point, StageSplit
from client.table import milliseconds, significant

FIRST_AND_LAST_TITLE = "Time to First and Last Prediction"
STAGES_TITLE = "Stages of a Unary Request"

# Legible on white, legible on black: the page's own style refines both.
_INK, _GRID = "#808080", "rgba(128, 128, 128, 0.25)"
_STAGES = {
    "decode": "#56B4E9",
    "queue": "#E69F00",
    "assemble": "#009E73",
    "compute": "#0072B2",
    "other": "#999999",
}

Figure = dict[str, Any]


def latency(points: Sequence[Point]) -> Figure:
    """Median time to the first prediction in seconds against batch size, with a band to p90."""
    data: list[dict[str, Any]] = []
    for mode, look in looks(points).items():
        chosen = of_mode(points, mode)
        p50 = [point.first_prediction_ns.p50 for point in chosen]
        p90 = [point.first_prediction_ns.p90 for point in chosen]
        data += [_band(mode, look, chosen, p50, p90), _line(mode, look, chosen, _seconds(p50))]
    return {
        "data": data,
        "layout": layout_of(LATENCY_TITLE)
        | {"xaxis": batch_axis(points), "yaxis": log_axis(LATENCY_LABEL)},
    }


def throughput(points: Sequence[Point]) -> Figure:
    """Predictions per second against batch size; a point where all failed leaves a gap."""
    data = []
    for mode, look in looks(points).items():
        chosen = of_mode(points, mode)
        data.append(_line(mode, look, chosen, [p.throughput_per_s or None for p in chosen]))
    return {
        "data": data,
        "layout": layout_of(THROUGHPUT_TITLE)
        | {"xaxis": batch_axis(points), "yaxis": log_axis(THROUGHPUT_LABEL)},
    }


def first_and_last(points: Sequence[Point], mode: str = "stream") -> Figure | None:
    """Median seconds to the first against the last prediction of `mode`; None without points."""
    chosen = [p for p in of_mode(points, mode) if p.latency_ns.samples]
    if not chosen:
        return None
    look = looks(chosen)[mode]
    first = [point.first_prediction_ns.p50 for point in chosen]
    last = [point.latency_ns.p50 for point in chosen]
    waits = [
        line_of(look, chosen, _seconds(last), "last prediction")
        | {"line": {"color": look.colour, "width": 2.5, "dash": "dot"}},
        line_of(look, chosen, _seconds(first), "first prediction"),
    ]
    for trace, times in zip(waits, (last, first), strict=True):
        trace["legendgroup"] = trace["name"]
        trace["customdata"] = [milliseconds(time_ns) for time_ns in times]
        trace["hovertemplate"] = f"{trace['name']}: %{{customdata}} ms<extra></extra>"
    return {
        "data": [_band(mode, look, chosen, first, last), *waits],
        "layout": layout_of(FIRST_AND_LAST_TITLE)
        | {"xaxis": batch_axis(chosen), "yaxis": log_axis("median time (seconds)")},
    }


def stage_split(points: Sequence[Point], mode: str = "unary") -> Figure | None:
    """Share of the mean latency of `mode` in each stage; None where the server reported none."""
    chosen = [(p.batch_size, p.stages) for p in of_mode(points, mode) if p.stages is not None]
    if not chosen:
        return None
    splits = [_stage_times(stages) for _, stages in chosen]
    totals = [sum(split.values()) for split in splits]
    data = [
        {
            "type": "bar",
            "name": stage,
            "x": [str(size) for size, _ in chosen],
            "y": [
                100 * split[stage] / total if total else 0
                for split, total in zip(splits, totals, strict=True)
            ],
            "customdata": [milliseconds(split[stage]) for split in splits],
            "marker": {"color": colour, "line": {"width": 0}},
            "hovertemplate": f"{stage}: %{{customdata}} ms (%{{y:.1f}}%)<extra></extra>",
        }
        for stage, colour in _STAGES.items()
    ]
    layout = layout_of(STAGES_TITLE) | {
        "barmode": "stack",
        "bargap": 0.25,
        # On a phone its five names take three rows, for which there is room below.
        "legend": {"orientation": "h", "x": 0.5, "xanchor": "center", "y": -0.22, "yanchor": "top"}
        | {"traceorder": "normal"},
        "margin": {"l": 70, "r": 16, "t": 56, "b": 60},
        "xaxis": linear_axis(BATCH_LABEL) | {"type": "category", "showgrid": False} | _HOVER_TITLE,
        "yaxis": linear_axis("share of mean latency (%)") | {"range": [0, 100]},
    }
    return {"data": data, "layout": layout}


def _stage_times(stages: StageSplit) -> dict[str, float]:
    return {
        "decode": stages.decode_ns,
        "queue": stages.queue_ns,
        "assemble": stages.assemble_ns,
        "compute": stages.compute_ns,
        "other": stages.other_ns or 0.0,
    }


def _seconds(times_ns: Sequence[int | None]) -> list[float | None]:
    return [None if time_ns is None else time_ns / 1e9 for time_ns in times_ns]


def _line(
    mode: str, look: Look, chosen: Sequence[Point], values: Sequence[float | None]
) -> dict[str, Any]:
    name = escape(mode)
    return line_of(look, chosen, values, name) | {
        "legendgroup": name,
        "customdata": [
            [
                milliseconds(point.first_prediction_ns.p50),
                milliseconds(point.first_prediction_ns.p90),
                significant(point.throughput_per_s),
            ]
            for point in chosen
        ],
        "hovertemplate": f"<b>{name}</b>: p50 %{{customdata[0]}} ms, p90 %{{customdata[1]}} ms, "
        "%{customdata[2]} predictions/s<extra></extra>",
    }


def line_of(
    look: Look, chosen: Sequence[Point], values: Sequence[float | None], name: str
) -> dict[str, Any]:
    """Return a line with its marks over the batch sizes of `chosen`."""
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "x": [point.batch_size for point in chosen],
        "y": list(values),
        "line": {"color": look.colour, "width": 2.5},
        "marker": {"color": look.colour, "symbol": look.symbol, "size": 9},
    }


def _band(
    mode: str,
    look: Look,
    chosen: Sequence[Point],
    low_ns: Sequence[int | None],
    high_ns: Sequence[int | None],
) -> dict[str, Any]:
    edges = [
        (point.batch_size, low / 1e9, high / 1e9)
        for point, low, high in zip(chosen, low_ns, high_ns, strict=True)
        if low is not None and high is not None
    ]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [size for size, _, _ in edges] + [size for size, _, _ in reversed(edges)],
        "y": [low for _, low, _ in edges] + [high for _, _, high in reversed(edges)],
        "fill": "toself",
        "fillcolor": look.colour,
        "opacity": 0.18,
        "line": {"width": 0},
        "legendgroup": escape(mode),
        "showlegend": False,
        "hoverinfo": "skip",
    }


def layout_of(title: str) -> dict[str, Any]:
    """Return what all plots have in common."""
    return {
        "title": {"text": title, "x": 0, "pad": {"l": 12}, "y": 0.97, "yanchor": "top"},
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": _INK},
        "paper_bgcolor": "rgba(0, 0, 0, 0)",
        "plot_bgcolor": "rgba(0, 0, 0, 0)",
        "margin": {"l": 70, "r": 16, "t": 84, "b": 60},
        "legend": {"orientation": "h", "x": 0.5, "xanchor": "center", "y": 1, "yanchor": "bottom"}
        | {"traceorder": "normal"},
        "hovermode": "x unified",
    }


# Plotly 6.3 shows it; what came before shows the bare number.
_HOVER_TITLE = {
    "showspikes": True,
    "unifiedhovertitle": {"text": "<b>batch size %{x}</b>"},
}


def linear_axis(title: str) -> dict[str, Any]:
    """Return an axis with what all of them have in common."""
    return {
        "title": {"text": title, "standoff": 12},
        "gridcolor": _GRID,
        "zeroline": False,
        "tickfont": {"size": 12},
        "autotickangles": [0, 45, 90],
        "showspikes": False,
        "spikecolor": _INK,
        "spikethickness": 1,
        "automargin": True,
    }


def batch_axis(points: Sequence[Point]) -> dict[str, Any]:
    """Return the axis of batch sizes."""
    ticks = batch_ticks(points)
    return (
        linear_axis(BATCH_LABEL)
        | {"type": "log", "tickmode": "array", "hoverformat": "d"}
        | {"tickvals": ticks, "ticktext": [str(tick) for tick in ticks]}
        | _HOVER_TITLE
    )


def log_axis(title: str) -> dict[str, Any]:
    """Return a logarithmic axis."""
    return linear_axis(title) | {"type": "log", "dtick": "D2", "tickformat": "~r"}
