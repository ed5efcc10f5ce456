"""Show where the time of a request went, stage by stage."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from measure.presentation.format import milliseconds
from measure.report.axes import HOVER_TITLE, LEGEND_BELOW, Figure, layout_of, linear_axis
from measure.sweep.plots import BATCH_LABEL, of_mode
from measure.sweep.summary import Point

SHARES_TITLE = "Stages of a Unary Request"
WATERFALL_TITLE = "Where the Time Goes"

# In the order in which a request passes them.
COLOURS = {
    "send lag": "#CC79A7",
    "send": "#F0E442",
    "network": "#BBBBBB",
    "decode": "#56B4E9",
    "queue": "#E69F00",
    "assemble": "#009E73",
    "compute": "#0072B2",
    "encode": "#D55E00",
    "receive": "#882255",
    "other": "#999999",
}
_KEYS = {f"{name.replace(' ', '_')}_ns": name for name in COLOURS}
_OF_A_SWEEP = ("decode", "queue", "assemble", "compute", "other")


def split(stages: Mapping[str, Any]) -> dict[str, float]:
    """Return mean nanoseconds by stage, from a record's keys; a missing stage counts 0."""
    return {name: stages.get(key) or 0.0 for key, name in _KEYS.items()}


def shares(points: Sequence[Point], mode: str = "unary") -> Figure | None:
    """Share of the mean latency of `mode` in each stage; None where the server reported none."""
    chosen = [(p.batch_size, p.stages) for p in of_mode(points, mode) if p.stages is not None]
    if not chosen:
        return None
    splits = [
        {name: getattr(stages, f"{name}_ns") or 0.0 for name in _OF_A_SWEEP} for _, stages in chosen
    ]
    totals = [sum(times.values()) for times in splits]
    data = [
        _bars(stage, [times[stage] for times in splits])
        | {
            "x": [str(size) for size, _ in chosen],
            "y": [
                100 * times[stage] / total if total else 0
                for times, total in zip(splits, totals, strict=True)
            ],
            "hovertemplate": f"{stage}: %{{customdata}} ms (%{{y:.1f}}%)<extra></extra>",
        }
        for stage in _OF_A_SWEEP
    ]
    layout = {
        "barmode": "stack",
        "bargap": 0.25,
        "xaxis": linear_axis(BATCH_LABEL) | {"type": "category", "showgrid": False} | HOVER_TITLE,
        "yaxis": linear_axis("share of mean latency (%)") | {"range": [0, 100]},
    }
    return {"data": data, "layout": layout_of(SHARES_TITLE) | LEGEND_BELOW | layout}


def waterfall(requests: Sequence[tuple[str, Mapping[str, float]]]) -> Figure | None:
    """Bars of the mean time in each stage, each starting where the one before ends.

    `requests`: a label and nanoseconds by stage, one bar each from the top down; None without any.
    """
    if not requests:
        return None
    labels = [escape(label) for label, _ in requests]
    data = [
        _bars(stage, [times.get(stage, 0.0) for _, times in requests])
        | {
            "orientation": "h",
            "y": labels,
            "x": [times.get(stage, 0.0) / 1e6 for _, times in requests],
            "hovertemplate": f"{stage}: %{{customdata}} ms<extra></extra>",
        }
        for stage in COLOURS
        if any(times.get(stage) for _, times in requests)
    ]
    layout = {
        "barmode": "stack",
        "bargap": 0.3,
        "hovermode": "y unified",
        "xaxis": linear_axis("mean time (milliseconds)") | {"rangemode": "tozero"},
        "yaxis": linear_axis("")
        | {"type": "category", "autorange": "reversed", "showgrid": False, "title": None},
    }
    return {"data": data, "layout": layout_of(WATERFALL_TITLE) | LEGEND_BELOW | layout}


def _bars(stage: str, times_ns: Sequence[float]) -> dict[str, Any]:
    return {
        "type": "bar",
        "name": stage,
        "customdata": [milliseconds(time_ns) for time_ns in times_ns],
        "marker": {"color": COLOURS[stage], "line": {"width": 0}},
    }
