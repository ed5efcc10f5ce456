"""Describe the interactive plots of a load, and find its knee."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from measure.load.plots import LOOPS, is_logarithmic, latency_title, ticks
from measure.load.summary import LoadPoint
from measure.presentation.looks import PERCENTILES, Look, looks_of
from measure.report.axes import (
    INK,
    LEGEND_BELOW,
    Figure,
    drawn_in,
    layout_of,
    line_of,
    linear_axis,
    log_axis,
    mark,
    ticks_at,
)

# Of one mode: the highest rate that the server kept up with, and the lowest rate above it.
Knee = tuple[float | None, float | None]


def knees(points: Sequence[LoadPoint]) -> dict[str, Knee]:
    """Return the knee of each mode, from its open loops.

    The server kept up with a rate if the point passed the check of the rate, that of requests left
    behind, and that of errors. None where there is no such rate.
    """
    opened = [p for p in points if p.asked.loop == "open" and p.asked.schedule is None]
    return {
        mode: _knee([point for point in opened if point.asked.mode == mode])
        for mode in looks(opened)
    }


def _knee(points: Sequence[LoadPoint]) -> Knee:
    lost = min((point.asked.level for point in points if not _kept_up(point)), default=None)
    held = [point.asked.level for point in points if lost is None or point.asked.level < lost]
    return max(held, default=None), lost


def _kept_up(point: LoadPoint) -> bool:
    decisive = {"rate", "left behind", "errors"}
    return all(check.passed is not False for check in point.checks if check.name in decisive)


def knee_text(mode: str, knee: Knee) -> str:
    """Say where the knee of a mode is, or that it was not seen."""
    held, lost = knee
    if held is None:
        return f"{mode}: not even the lowest rate, {lost:g} requests/s, was kept up with."
    if lost is None:
        return f"{mode}: every rate up to {held:g} requests/s was kept up with; no knee was seen."
    return f"{mode}: {held:g} requests/s was kept up with, {lost:g} was not; the knee is between."


def latency(
    chosen: Sequence[LoadPoint], loop: str, found: Mapping[str, Knee], bound_ms: float | None
) -> Figure:
    """Percentiles over the load, of the points of one loop; a knee is marked where it was seen."""
    data = []
    for mode, look in looks(chosen).items():
        of_mode = [point for point in chosen if point.asked.mode == mode]
        for percentile, stroke in PERCENTILES.items():
            times_ns = [getattr(point.latency_ns, percentile) for point in of_mode]
            if not any(times_ns):
                continue
            values = [None if time_ns is None else time_ns / 1e6 for time_ns in times_ns]
            label = escape(f"{mode} {percentile.replace('_', '.')}")
            line = _line(of_mode, look, values, label)
            line["line"] = line["line"] | {"dash": stroke.dash}
            data.append(line)
    marks = list(_knees(found))
    if bound_ms is not None:
        marks.append(mark("y", bound_ms, "bound"))
    layout = LEGEND_BELOW | {
        "showlegend": True,
        "xaxis": _load_axis(chosen, loop),
        "yaxis": log_axis("latency (milliseconds)", [*drawn_in(data), bound_ms]),
        "shapes": marks,
    }
    return {"data": data, "layout": layout_of(latency_title(loop)) | layout}


def _knees(found: Mapping[str, Knee]) -> Iterator[dict[str, Any]]:
    """Mark each observed knee, which lies between two rates."""
    seen = [(mode, held, lost) for mode, (held, lost) in found.items() if held and lost]
    for number, (mode, held, lost) in enumerate(seen):
        yield {
            "type": "rect",
            "layer": "below",
            "x0": held,
            "x1": lost,
            "y0": 0,
            "y1": 1,
            "yref": "paper",
            "fillcolor": looks_of([mode])[mode].colour,
            "opacity": 0.15,
            "line": {"width": 0},
            # Labels of knees at the same place are stacked.
            "label": {
                "text": escape(f"knee, {mode}"),
                "textposition": "top left",
                "padding": 4 + 15 * number,
                "font": {"size": 12},
            },
        }


def throughput(chosen: Sequence[LoadPoint], loop: str) -> Figure:
    """Requests answered a second over the load."""
    data: list[dict[str, Any]] = []
    for mode, look in looks(chosen).items():
        of_mode = [point for point in chosen if point.asked.mode == mode]
        rates: list[float | None] = [point.requests_per_s or None for point in of_mode]
        data.append(_line(of_mode, look, rates, escape(mode)))
        data += _goodput(of_mode, look, escape(mode))
    logarithmic = is_logarithmic(chosen, loop)
    if loop == "open":
        levels = sorted({point.asked.level for point in chosen})
        if not logarithmic:
            levels.insert(0, 0.0)
        offered = {"type": "scatter", "mode": "lines", "name": "offered", "x": levels, "y": levels}
        data.append(offered | {"line": {"color": INK, "dash": "dot"}, "hoverinfo": "skip"})
    label = "requests/second answered"
    layout = LEGEND_BELOW | {
        "showlegend": True,
        "xaxis": _load_axis(chosen, loop),
        "yaxis": log_axis(label, drawn_in(data))
        if logarithmic
        else linear_axis(label) | {"rangemode": "tozero"},
    }
    title = f"Throughput as {LOOPS[loop].varied} Changes"
    return {"data": data, "layout": layout_of(title) | layout}


def _goodput(points: Sequence[LoadPoint], look: Look, label: str) -> list[dict[str, Any]]:
    """The line of goodput of one mode; none if no point has it."""
    rates = [None if p.goodput is None else p.goodput.requests_per_s or None for p in points]
    if not any(rates):
        return []
    line = _line(points, look, rates, f"{label}, goodput")
    line["line"] = line["line"] | {"dash": "dash"}
    return [line]


def _load_axis(points: Sequence[LoadPoint], loop: str) -> dict[str, Any]:
    """Return the axis of loads, labelled where something was measured."""
    axis = linear_axis(LOOPS[loop].label) | ticks_at(ticks(points, loop))
    return axis | ({"type": "log"} if is_logarithmic(points, loop) else {"rangemode": "tozero"})


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
