"""Describe the interactive plots over batch size as plotly figures."""

from collections.abc import Sequence
from html import escape
from typing import Any

from measure.presentation.format import milliseconds, significant
from measure.presentation.looks import Look
from measure.report.axes import Figure, band_of, batch_axis, drawn_in, layout_of, line_of, log_axis
from measure.sweep.plots import (
    LATENCY_LABEL,
    LATENCY_TITLE,
    THROUGHPUT_LABEL,
    THROUGHPUT_TITLE,
    looks,
    of_mode,
)
from measure.sweep.summary import Point

FIRST_AND_LAST_TITLE = "Time to First and Last Prediction"


def latency(points: Sequence[Point]) -> Figure:
    """Median time to the first prediction in seconds against batch size, with a band to p90."""
    data: list[dict[str, Any]] = []
    for mode, look in looks(points).items():
        chosen = of_mode(points, mode)
        p50 = [point.first_prediction_ns.p50 for point in chosen]
        p90 = [point.first_prediction_ns.known_p90 for point in chosen]
        data += [_band(mode, look, chosen, p50, p90), _line(mode, look, chosen, _seconds(p50))]
    return {
        "data": data,
        "layout": layout_of(LATENCY_TITLE)
        | {"xaxis": batch_axis(points), "yaxis": log_axis(LATENCY_LABEL, drawn_in(data))},
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
        | {"xaxis": batch_axis(points), "yaxis": log_axis(THROUGHPUT_LABEL, drawn_in(data))},
    }


def first_and_last(points: Sequence[Point], mode: str = "stream") -> Figure | None:
    """Median seconds to the first against the last prediction of `mode`; None without points."""
    chosen = [p for p in of_mode(points, mode) if p.latency_ns.samples]
    if not chosen:
        return None
    look = looks(chosen)[mode]
    first = [point.first_prediction_ns.p50 for point in chosen]
    last = [point.latency_ns.p50 for point in chosen]
    sizes = [point.batch_size for point in chosen]
    waits = [
        line_of(look, sizes, _seconds(last), "last prediction")
        | {"line": {"color": look.colour, "width": 2.5, "dash": "dot"}},
        line_of(look, sizes, _seconds(first), "first prediction"),
    ]
    for trace, times in zip(waits, (last, first), strict=True):
        trace["legendgroup"] = trace["name"]
        trace["customdata"] = [milliseconds(time_ns) for time_ns in times]
        trace["hovertemplate"] = f"{trace['name']}: %{{customdata}} ms<extra></extra>"
    data = [_band(mode, look, chosen, first, last), *waits]
    return {
        "data": data,
        "layout": layout_of(FIRST_AND_LAST_TITLE)
        | {"xaxis": batch_axis(chosen), "yaxis": log_axis("median time (seconds)", drawn_in(data))},
    }


def _seconds(times_ns: Sequence[int | None]) -> list[float | None]:
    return [None if time_ns is None else time_ns / 1e9 for time_ns in times_ns]


def _line(
    mode: str, look: Look, chosen: Sequence[Point], values: Sequence[float | None]
) -> dict[str, Any]:
    name = escape(mode)
    return line_of(look, [point.batch_size for point in chosen], values, name) | {
        "legendgroup": name,
        "customdata": [
            [
                milliseconds(point.first_prediction_ns.p50),
                milliseconds(point.first_prediction_ns.known_p90),
                significant(point.throughput_per_s),
            ]
            for point in chosen
        ],
        "hovertemplate": f"<b>{name}</b>: p50 %{{customdata[0]}} ms, p90 %{{customdata[1]}} ms, "
        "%{customdata[2]} predictions/s<extra></extra>",
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
    return band_of(look.colour, edges, escape(mode))
