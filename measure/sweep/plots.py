"""Draw the two plots of a sweep as PNG."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from measure.presentation.looks import Look, looks_of
from measure.presentation.plots import canvas, draw_line, finish, head, label_at, png
from measure.sweep.summary import Point

LATENCY_TITLE = "Latency as Batch Size Changes"
LATENCY_LABEL = "latency (seconds before first prediction)"
THROUGHPUT_TITLE = "Throughput as Batch Size Changes"
THROUGHPUT_LABEL = "throughput (predictions/second)"
BATCH_LABEL = "batch size"


def looks(points: Sequence[Point]) -> dict[str, Look]:
    """Look of each mode among `points`, in the order of `looks_of`."""
    return looks_of([point.mode for point in points])


def of_mode(points: Sequence[Point], mode: str) -> list[Point]:
    """Points of one mode by rising batch size."""
    return sorted((p for p in points if p.mode == mode), key=lambda point: point.batch_size)


def latency_png(points: Sequence[Point]) -> bytes:
    """PNG of `latency_figure`."""
    return png(latency_figure(points))


def throughput_png(points: Sequence[Point]) -> bytes:
    """PNG of `throughput_figure`."""
    return png(throughput_figure(points))


def latency_figure(points: Sequence[Point]) -> Figure:
    """Median time to the first prediction in seconds against batch size, one line per mode."""
    figure, axes = _canvas(points, LATENCY_TITLE, LATENCY_LABEL)
    for mode, look in looks(points).items():
        chosen = of_mode(points, mode)
        sizes = [point.batch_size for point in chosen]
        p50_s = [_seconds(point.first_prediction_ns.p50) for point in chosen]
        p90_s = [_seconds(point.first_prediction_ns.known_p90) for point in chosen]
        axes.fill_between(sizes, p50_s, p90_s, color=look.colour, alpha=0.18, linewidth=0)
        draw_line(axes, mode, look, sizes, p50_s)
    finish(axes, "lines: median; bands: median to 90th percentile, where samples suffice")
    return figure


def throughput_figure(points: Sequence[Point]) -> Figure:
    """Predictions per second against batch size, one line per mode."""
    figure, axes = _canvas(points, THROUGHPUT_TITLE, THROUGHPUT_LABEL)
    for mode, look in looks(points).items():
        chosen = of_mode(points, mode)
        # A point where everything failed leaves a gap: a log scale has no zero.
        rates = [point.throughput_per_s or math.nan for point in chosen]
        draw_line(axes, mode, look, [point.batch_size for point in chosen], rates)
    finish(axes, "rows answered without error, divided by the time of all batches")
    return figure


def _seconds(time_ns: int | None) -> float:
    return math.nan if time_ns is None else time_ns / 1e9


def _canvas(points: Sequence[Point], title: str, label: str) -> tuple[Figure, Axes]:
    figure = canvas()
    axes = figure.add_subplot()
    prepare(axes, points, title, label)
    return figure, axes


def prepare(axes: Axes, points: Sequence[Point], title: str, label: str) -> None:
    """Give axes a title, logarithmic scales, and the batch sizes of `points` below."""
    head(axes, title, BATCH_LABEL, label)
    axes.set_xscale("log", base=2)
    label_at(axes, batch_ticks(points))


def batch_ticks(points: Sequence[Point]) -> list[int]:
    """Powers of two that span the batch sizes of `points`."""
    sizes = [point.batch_size for point in points] or [1]
    first, last = min(sizes).bit_length() - 1, (max(sizes) - 1).bit_length()
    return [2**i for i in range(first, last + 1)]
