"""Draw latency against load as PNG."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from measure.load.summary import LoadPoint
from measure.presentation.looks import PERCENTILES, looks_of
from measure.presentation.plots import canvas, dress, head, label_at, legend, png

# Labels closer together than this share of the axis would overlap.
_NEAREST = 1 / 12


# Rates that differ by more than this are drawn on a logarithmic scale.
_WIDE = 8


@dataclass(frozen=True, slots=True)
class Loop:
    """The varied quantity of a kind of loop, as a title and as an axis label."""

    varied: str
    label: str


LOOPS = {
    "closed": Loop("Concurrency", "concurrency (closed loop)"),
    "open": Loop("Offered Rate", "offered requests/second (open loop)"),
}


def latency_title(loop: str) -> str:
    """Title of a picture of latency."""
    return f"Latency as {LOOPS[loop].varied} Changes"


def is_logarithmic(points: Sequence[LoadPoint], loop: str) -> bool:
    """Whether the load axis of one loop's points is logarithmic."""
    levels = [point.asked.level for point in points]
    return loop == "closed" or (bool(levels) and max(levels) > _WIDE * min(levels))


def ticks(points: Sequence[LoadPoint], loop: str) -> list[float]:
    """The measured loads that there is room to label; always includes the highest."""
    levels = sorted({point.asked.level for point in points}, reverse=True)
    if not levels:
        return []
    logarithmic = is_logarithmic(points, loop)
    places = [math.log(level) if logarithmic else level for level in levels]
    # A linear axis starts at zero.
    apart = (places[0] - (places[-1] if logarithmic else 0.0)) * _NEAREST
    chosen: list[int] = []
    for index, place in enumerate(places):
        if not chosen or places[chosen[-1]] - place >= apart:
            chosen.append(index)
    return [levels[index] for index in reversed(chosen)]


def latency_png(points: Sequence[LoadPoint], loop: str) -> bytes:
    """PNG of `latency_figure`."""
    return png(latency_figure(points, loop))


def latency_figure(points: Sequence[LoadPoint], loop: str) -> Figure:
    """Percentiles of latency in milliseconds against the load, of the points of one loop.

    Each mode has a colour, each percentile a stroke. A percentile without enough samples leaves a
    gap; invalid points are hollow.
    """
    chosen = sorted((p for p in points if p.asked.loop == loop), key=lambda p: p.asked.level)
    figure = canvas()
    axes = figure.add_subplot()
    head(axes, latency_title(loop), LOOPS[loop].label, "latency (milliseconds)")
    if is_logarithmic(chosen, loop):
        axes.set_xscale("log", base=2)
    modes: dict[str, Line2D] = {}
    strokes: dict[str, Line2D] = {}
    for mode, look in looks_of([point.asked.mode for point in chosen]).items():
        of_mode = [point for point in chosen if point.asked.mode == mode]
        levels = [point.asked.level for point in of_mode]
        for percentile, stroke in PERCENTILES.items():
            times_ns = [getattr(point.latency_ns, percentile) for point in of_mode]
            values = [math.nan if time_ns is None else time_ns / 1e6 for time_ns in times_ns]
            if all(map(math.isnan, values)):
                continue
            axes.plot(levels, values, stroke.style, color=look.colour, linewidth=1.8)
            for level, value, point in zip(levels, values, of_mode, strict=True):
                inside = look.colour if point.valid else "white"
                axes.plot(
                    level, value, look.marker, color=look.colour, markerfacecolor=inside, ms=6.5
                )
            modes[mode] = Line2D([], [], color=look.colour, marker=look.marker, linewidth=1.8)
            name = percentile.replace("_", ".")
            strokes[name] = Line2D([], [], color="#444444", linestyle=stroke.style)
    if not is_logarithmic(chosen, loop):
        axes.set_xlim(left=0)
    label_at(axes, ticks(chosen, loop))
    hollow = any(not point.valid for point in chosen)
    dress(axes, "hollow: not valid, a check failed" if hollow else "")
    if modes:
        legend(axes, [*modes.values(), *strokes.values()], [*modes, *strokes])
    return figure
