"""Draw a replayed schedule over time as PNG: rates, and the latency of each window."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from measure.engine.windows import Window
from measure.load.summary import LoadPoint
from measure.presentation.looks import looks_of
from measure.presentation.plots import INK, MUTED, canvas, dress, frame, head, legend, png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RATES_TITLE, LATENCY_TITLE = "Requests of the Schedule over Time", "Latency over Time"
TIME_LABEL = "seconds since the start"
RATES_LABEL, LATENCY_LABEL = "requests/second", "mean latency (milliseconds)"


def replayed(points: Sequence[LoadPoint]) -> list[LoadPoint]:
    """The points that replay a schedule."""
    return [point for point in points if point.asked.schedule is not None]


def middles_s(windows: Sequence[Window]) -> list[float]:
    """The middle of each window, in seconds since the start."""
    return [(window.start_s or 0.0) + (window.seconds or 0.0) / 2 for window in windows]


def over_time_png(points: Sequence[LoadPoint]) -> bytes:
    """PNG of `over_time_figure`."""
    return png(over_time_figure(points))


def over_time_figure(points: Sequence[LoadPoint]) -> Figure:
    """Offered and answered rate, and below them mean latency, of the windows of each mode."""
    figure = canvas((8, 7))
    above, below = figure.add_subplot(2, 1, 1), figure.add_subplot(2, 1, 2)
    head(above, RATES_TITLE, "", RATES_LABEL)
    above.set_yscale("linear")
    head(below, LATENCY_TITLE, TIME_LABEL, LATENCY_LABEL, legend_below=False)
    for number, (mode, look) in enumerate(looks_of([p.asked.mode for p in points]).items()):
        for point in (point for point in points if point.asked.mode == mode):
            at_s = middles_s(point.windows)
            if number == 0:
                due = [window.due_per_s for window in point.windows]
                above.plot(at_s, due, ":", color=MUTED, linewidth=1.8, label="offered")
            answered = [window.rate_per_s for window in point.windows]
            means_ns = [window.mean_latency_ns for window in point.windows]
            means_ms = [math.nan if ns is None else ns / 1e6 for ns in means_ns]
            above.plot(at_s, answered, "-", color=look.colour, linewidth=1.8, label=mode)
            marker = "." if len(at_s) < 100 else ""
            below.plot(at_s, means_ms, "-", marker=marker, color=look.colour, linewidth=1.8)
    above.set_ylim(bottom=0)
    for axes in (above, below):
        axes.set_xlim(left=0)
    frame(above, "")
    above.tick_params(labelcolor=INK)
    dress(below, "")
    legend(above, *above.get_legend_handles_labels())
    return figure
