"""Show where the time of a request went, stage by stage."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
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
    "server receive": "#A3A500",
    "network": "#BBBBBB",
    "decode": "#56B4E9",
    "queue": "#E69F00",
    "assemble": "#009E73",
    "compute": "#0072B2",
    "handover": "#9467BD",
    "encode": "#D55E00",
    "server send": "#A0622D",
    "answer receive": "#44AA99",
    "client decode": "#882255",
    "other": "#999999",
}
_KEYS = {name: f"{name.replace(' ', '_')}_ns" for name in COLOURS} | {"client decode": "receive_ns"}
# Both sides work on the same bytes: of the second stage only that part is drawn by which it is
# longer than the first.
_DURING = {"server receive": "send", "answer receive": "server send"}
OVERLAP = (
    "The server receives while the client sends, and the client while the server sends: the second "
    "of each pair is drawn as far as it is longer."
)
# Of a load's stages, a sweep has no others.
_OF_A_SWEEP = (
    *("send", "server receive", "decode", "queue", "assemble", "compute", "handover"),
    *("answer receive", "other"),
)


def split(stages: Mapping[str, Any]) -> dict[str, float]:
    """Return mean nanoseconds by stage, from a record's keys, such that the stages add up.

    A missing stage counts 0; of two that overlap, the longer one counts.
    """
    times = {name: stages.get(key) or 0.0 for name, key in _KEYS.items()}
    during = {name: max(times[name] - times[earlier], 0.0) for name, earlier in _DURING.items()}
    return times | during


def shares(points: Sequence[Point], mode: str = "unary") -> Figure | None:
    """Share of the mean latency of `mode` in each stage; None where the server reported none."""
    chosen = [(p.batch_size, p.stages) for p in of_mode(points, mode) if p.stages is not None]
    if not chosen:
        return None
    known = [split(asdict(stages)) for _, stages in chosen]
    shown = [name for name in _OF_A_SWEEP if any(times[name] for times in known)]
    splits = [{name: times[name] for name in shown} for times in known]
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
        for stage in shown
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
