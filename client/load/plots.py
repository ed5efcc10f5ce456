"""Draw latency against load as PNG."""

import math
from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from client.load.summary import LoadPoint
from client.plots import png

LABELS = {"closed": "concurrency (closed loop)", "open": "requests/second asked (open loop)"}
PERCENTILES = (("p50", "#0072B2"), ("p90", "#009E73"), ("p99", "#E69F00"), ("p99_9", "#D55E00"))
# Markers are those of a sweep's plots.
_STYLES = {"unary": ("s", "-"), "stream": ("^", "--"), "shm": ("D", ":")}


def latency_png(points: Sequence[LoadPoint], loop: str) -> bytes:
    """PNG of `latency_figure`."""
    return png(latency_figure(points, loop))


def latency_figure(points: Sequence[LoadPoint], loop: str) -> Figure:
    """Percentiles of latency in milliseconds against the load, of the points of one loop.

    A percentile without enough samples leaves a gap; points that are not valid are hollow.
    """
    chosen = sorted((p for p in points if p.asked.loop == loop), key=lambda p: p.asked.level)
    figure = Figure(figsize=(8, 5), dpi=150, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    axes.set_title("Latency as Load Changes", fontsize=15, fontweight="bold")
    axes.set_xlabel(LABELS[loop])
    axes.set_ylabel("latency (milliseconds)")
    axes.set_yscale("log")
    for mode in dict.fromkeys(point.asked.mode for point in chosen):
        of_mode = [point for point in chosen if point.asked.mode == mode]
        levels = [point.asked.level for point in of_mode]
        for percentile, colour in PERCENTILES:
            told = [getattr(point.latency_ns, percentile) for point in of_mode]
            values = [math.nan if time_ns is None else time_ns / 1e6 for time_ns in told]
            if all(map(math.isnan, values)):
                continue
            marker, style = _STYLES[mode]
            label = f"{mode} {percentile.replace('_', '.')}"
            axes.plot(levels, values, style, marker=marker, color=colour, label=label)
            for level, value, point in zip(levels, values, of_mode, strict=True):
                if not point.valid:
                    axes.plot([level], [value], marker, color=colour, markerfacecolor="white")
    if axes.lines:
        axes.legend(frameon=False)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.grid(color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
