"""Describe the interactive plots of a replayed schedule over time."""

from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from measure.engine.windows import Window
from measure.load.over_time import (
    LATENCY_LABEL,
    LATENCY_TITLE,
    RATES_LABEL,
    RATES_TITLE,
    TIME_LABEL,
    middles_s,
)
from measure.load.summary import LoadPoint
from measure.presentation.looks import looks_of
from measure.report.axes import (
    INK,
    LEGEND_BELOW,
    Figure,
    drawn_in,
    layout_of,
    line_of,
    linear_axis,
    log_axis,
)


def rates(points: Sequence[LoadPoint]) -> Figure:
    """Offered and answered requests a second of each window."""
    data = _lines(points, lambda window: window.rate_per_s)
    offered = {
        "type": "scatter",
        "mode": "lines",
        "name": "offered",
        "x": middles_s(points[0].windows),
        "y": [window.due_per_s for window in points[0].windows],
        "line": {"color": INK, "dash": "dot"},
    }
    axis = linear_axis(RATES_LABEL) | {"rangemode": "tozero"}
    return _figure(RATES_TITLE, [*data, offered], axis)


def latency(points: Sequence[LoadPoint]) -> Figure:
    """Mean latency of each window in milliseconds; a window without answers leaves a gap."""
    data = _lines(
        points,
        lambda window: None if window.mean_latency_ns is None else window.mean_latency_ns / 1e6,
    )
    return _figure(LATENCY_TITLE, data, log_axis(LATENCY_LABEL, drawn_in(data)))


def _lines(
    points: Sequence[LoadPoint], value: Callable[[Window], float | None]
) -> list[dict[str, Any]]:
    looks = looks_of([point.asked.mode for point in points])
    return [
        line_of(
            looks[point.asked.mode],
            middles_s(point.windows),
            [value(window) for window in point.windows],
            escape(point.asked.mode),
        )
        | {"mode": "lines"}
        for point in points
    ]


def _figure(title: str, data: list[dict[str, Any]], y_axis: dict[str, Any]) -> Figure:
    layout = LEGEND_BELOW | {
        "showlegend": True,
        "xaxis": linear_axis(TIME_LABEL) | {"rangemode": "tozero", "hoverformat": ".2f"},
        "yaxis": y_axis,
    }
    return {"data": data, "layout": layout_of(title) | layout}
