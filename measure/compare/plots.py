"""Draw a comparison of execution providers as PNG."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from measure.compare.analysis import Analysis
from measure.core.latency_fit import Fit
from measure.presentation.looks import Look
from measure.presentation.plots import MUTED, canvas, draw_line, finish, png
from measure.sweep.plots import looks, prepare
from measure.sweep.summary import Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LATENCY_LABEL = "latency (seconds before the last prediction)"
RATIO_LABEL = "ratio (above 1: slower)"


def points_by_provider(analysis: Analysis, mode: str) -> list[Point]:
    """Points of one mode to draw a line of each provider: its label stands in place of the mode.

    What is compared is the wait for a whole batch, so that is what they are drawn by.
    """
    return [
        replace(cell.point, mode=cell.provider, first_prediction_ns=cell.point.latency_ns)
        for cell in analysis.measured.cells
        if cell.point.mode == mode
    ]


def comparison_png(analysis: Analysis) -> bytes:
    """PNG of `comparison_figure`."""
    return png(comparison_figure(analysis))


def comparison_figure(analysis: Analysis) -> Figure:
    """Latency with its fit, and the ratio to the first provider, a row of both for each mode."""
    modes = analysis.measured.modes
    figure = canvas((14, 5.2 * len(modes)), dpi=120)
    rows = figure.subplots(len(modes), 2, squeeze=False)
    for mode, (latency, ratio) in zip(modes, rows, strict=True):
        _latency(latency, analysis, mode)
        _ratio(ratio, analysis, mode)
    return figure


def _latency(axes: Axes, analysis: Analysis, mode: str) -> None:
    points = points_by_provider(analysis, mode)
    prepare(axes, points, f"Latency, {mode}", LATENCY_LABEL)
    fits = {line.provider: line.fit for line in analysis.lines if line.mode == mode}
    for label, look in looks(points).items():
        chosen = [p for p in points if p.mode == label and p.latency_ns.p50 is not None]
        sizes = [point.batch_size for point in chosen]
        draw_line(axes, label, look, sizes, [(p.latency_ns.p50 or 0) / 1e9 for p in chosen])
        if label in fits:
            _fit(axes, look, analysis.measured.batch_sizes, fits[label])
    finish(axes, "lines: median; dotted: alpha + beta x rows")


def _fit(axes: Axes, look: Look, sizes: list[int], fit: Fit) -> None:
    # On logarithmic scales a line is bent: it takes many points to show.
    low, high = sizes[0], sizes[-1]
    places = [low * (high / low) ** (step / 100) for step in range(101)]
    seconds = [fit.latency_ns(place) / 1e9 for place in places]
    axes.plot(places, seconds, color=look.colour, linestyle=":", linewidth=1.6)


def _ratio(axes: Axes, analysis: Analysis, mode: str) -> None:
    points = points_by_provider(analysis, mode)
    first = analysis.measured.providers[0].label
    prepare(axes, points, f"Latency over that of {first}, {mode}", RATIO_LABEL)
    axes.axhline(1, color=MUTED, linewidth=1)
    for label, look in looks(points).items():
        pairs = analysis.over_first(mode, label)
        if not pairs:
            continue
        medians = [pair.ratio.median for pair in pairs]
        sizes = [pair.batch_size for pair in pairs]
        draw_line(axes, label, look, sizes, medians)
        axes.errorbar(
            sizes,
            medians,
            yerr=[
                [pair.ratio.median - pair.ratio.low for pair in pairs],
                [pair.ratio.high - pair.ratio.median for pair in pairs],
            ],
            fmt="none",
            ecolor=look.colour,
            elinewidth=1.4,
            capsize=3,
        )
    finish(axes, "bars: bootstrap interval of the median ratio, 95% for all at once")
    axes.set_yscale("linear")
