"""Describe the interactive plots of a load, and find its knee."""

from collections.abc import Sequence
from html import escape
from typing import Any

from client.load.plots import LABELS, PERCENTILES
from client.load.summary import LoadPoint
from client.plots import Look, looks_of
from client.reporting.axes import Figure, layout_of, line_of, linear_axis, log_axis, mark


def knee(points: Sequence[LoadPoint]) -> tuple[float | None, float | None]:
    """Return the highest rate that was kept up with, and the lowest above it that was not.

    Of points of an open loop; the server kept up with a rate if it passed the check of the rate
    and that of requests left behind. None where there is no such rate.
    """
    kept = {point.asked.level: _kept_up(point) for point in points if point.asked.loop == "open"}
    lost = min((level for level, good in kept.items() if not good), default=None)
    held = [level for level, good in kept.items() if good and (lost is None or level < lost)]
    return max(held, default=None), lost


def _kept_up(point: LoadPoint) -> bool:
    telling = {"rate", "left behind", "errors"}
    return all(check.passed is not False for check in point.checks if check.name in telling)


def knee_text(held: float | None, lost: float | None) -> str:
    """Say where the knee is."""
    if held is None:
        return "The knee lies below the lowest rate."
    if lost is None:
        return f"The knee lies above {held:g} requests/s: every rate was kept up with."
    return (
        f"The knee: {held:g} requests/s is the highest rate that was kept up with, "
        f"{lost:g} was not."
    )


def latency(
    chosen: Sequence[LoadPoint], loop: str, held: float | None, bound_ms: float | None
) -> Figure:
    """Percentiles over the load, of the points of one loop; `held` is the knee, if there is one."""
    data = []
    for mode, look in looks(chosen).items():
        of_mode = [point for point in chosen if point.asked.mode == mode]
        for percentile, colour in PERCENTILES:
            told = [getattr(point.latency_ns, percentile) for point in of_mode]
            if not any(told):
                continue
            values = [None if time_ns is None else time_ns / 1e6 for time_ns in told]
            label = escape(f"{mode} {percentile.replace('_', '.')}")
            data.append(_line(of_mode, Look(colour, look.marker, look.symbol), values, label))
    lines = []
    if held is not None:
        lines.append(mark("x", held, "knee"))
    if bound_ms is not None:
        lines.append(mark("y", bound_ms, "bound"))
    layout = {
        "showlegend": True,
        "xaxis": linear_axis(LABELS[loop]) | {"rangemode": "tozero"},
        "yaxis": log_axis("latency (milliseconds)"),
        "shapes": lines,
    }
    return {"data": data, "layout": layout_of("Latency as Load Changes") | layout}


def throughput(chosen: Sequence[LoadPoint], loop: str) -> Figure:
    """Requests answered a second over the load."""
    data: list[dict[str, Any]] = []
    for mode, look in looks(chosen).items():
        of_mode = [point for point in chosen if point.asked.mode == mode]
        rates: list[float | None] = [point.requests_per_s or None for point in of_mode]
        data.append(_line(of_mode, look, rates, escape(mode)))
    if loop == "open":
        levels = [0.0, max(point.asked.level for point in chosen)]
        asked = {"type": "scatter", "mode": "lines", "name": "asked", "x": levels, "y": levels}
        data.append(asked | {"line": {"color": "#808080", "dash": "dot"}, "hoverinfo": "skip"})
    layout = {
        "showlegend": True,
        "xaxis": linear_axis(LABELS[loop]) | {"rangemode": "tozero"},
        "yaxis": linear_axis("requests/second answered") | {"rangemode": "tozero"},
    }
    return {"data": data, "layout": layout_of("Throughput as Load Changes") | layout}


def _line(
    points: Sequence[LoadPoint], look: Look, values: Sequence[float | None], label: str
) -> dict[str, Any]:
    line = line_of(look, [point.asked.level for point in points], values, label)
    hollow = [look.symbol if point.valid else f"{look.symbol}-open" for point in points]
    line["marker"] = line["marker"] | {"symbol": hollow}
    return line | {"hovertemplate": f"{label}: %{{y:.4~g}}<extra></extra>"}


def looks(points: Sequence[LoadPoint]) -> dict[str, Look]:
    """Look of each mode among the points."""
    return looks_of([point.asked.mode for point in points])
