"""Draw the two plots of a sweep as PNG."""

import io
import math
from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from measure.core.looks import Look, looks_of
from measure.sweep.summary import Point

LATENCY_TITLE = "Latency as Batch Size Changes"
LATENCY_LABEL = "latency (seconds before first prediction)"
THROUGHPUT_TITLE = "Throughput as Batch Size Changes"
THROUGHPUT_LABEL = "throughput (predictions/second)"
BATCH_LABEL = "batch size"

# Values within a factor of this are labelled as on a linear scale.
NARROW = 4
_INK, _MUTED, _GRID = "#222222", "#666666", "#dddddd"


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
        # A point where everything failed leaves a gap: zero has no place on a log scale.
        rates = [point.throughput_per_s or math.nan for point in chosen]
        draw_line(axes, mode, look, [point.batch_size for point in chosen], rates)
    finish(axes, "rows answered without error over the time of all batches")
    return figure


def _seconds(time_ns: int | None) -> float:
    return math.nan if time_ns is None else time_ns / 1e9


def _canvas(points: Sequence[Point], title: str, label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8, 5), dpi=150, facecolor="white")
    figure.set_layout_engine("constrained", w_pad=0.15, h_pad=0.12)
    axes = figure.add_subplot()
    prepare(axes, points, title, label)
    return figure, axes


def prepare(axes: Axes, points: Sequence[Point], title: str, label: str) -> None:
    """Give axes a title, logarithmic scales, and the batch sizes of `points` below."""
    head(axes, title, BATCH_LABEL, label)
    axes.set_xscale("log", base=2)
    label_at(axes, batch_ticks(points))


def head(axes: Axes, title: str, x_label: str, y_label: str) -> None:
    """Give axes a title with room for a legend below it, labels, and a logarithmic scale."""
    axes.set_title(title, fontsize=15, fontweight="bold", color=_INK, pad=34)
    axes.set_xlabel(x_label, fontsize=11, color=_INK, labelpad=8)
    axes.set_ylabel(y_label, fontsize=11, color=_INK, labelpad=8)
    axes.set_yscale("log", base=10)


def label_at(axes: Axes, places: Sequence[float]) -> None:
    """Label the horizontal axis at these places and nowhere else."""
    axes.xaxis.set_major_locator(FixedLocator([float(place) for place in places]))
    axes.xaxis.set_major_formatter(FuncFormatter(_plain))
    axes.xaxis.set_minor_locator(NullLocator())


def batch_ticks(points: Sequence[Point]) -> list[int]:
    """Powers of two that span the batch sizes of `points`."""
    sizes = [point.batch_size for point in points] or [1]
    first, last = min(sizes).bit_length() - 1, (max(sizes) - 1).bit_length()
    return [2**i for i in range(first, last + 1)]


def draw_line(axes: Axes, mode: str, look: Look, sizes: list[int], values: list[float]) -> None:
    """Draw a line with its marks, as `mode` in the legend."""
    axes.plot(
        sizes,
        values,
        color=look.colour,
        marker=look.marker,
        markersize=6.5,
        markeredgecolor="white",
        markeredgewidth=0.8,
        linewidth=2,
        label=mode,
    )


def finish(axes: Axes, note: str) -> None:
    """Label what was drawn: scales, grid, legend, and a note below."""
    dress(axes, note)
    if axes.lines:
        legend(axes, *axes.get_legend_handles_labels())
    else:
        axes.text(0.5, 0.5, "no points", transform=axes.transAxes, ha="center", color=_MUTED)


def dress(axes: Axes, note: str) -> None:
    """Give axes their grid, labels at round values of what was drawn, and a note below."""
    low, high = axes.get_ylim()
    # Where the powers of ten alone would label too little, 2 and 5 are labelled too; where even
    # those may lie outside, any round value.
    steps = (1.0, 2.0, 5.0) if high / low < 10**2.5 else (1.0,)
    narrow = high / low < NARROW
    axes.yaxis.set_major_locator(MaxNLocator(6) if narrow else LogLocator(base=10, subs=steps))
    axes.yaxis.set_major_formatter(FuncFormatter(_plain))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#aaaaaa")
    axes.tick_params(colors=_INK, labelsize=10, length=0, pad=6)
    axes.annotate(
        note,
        (1, 0),
        (0, -50),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="right",
        fontsize=8.5,
        color=_MUTED,
    )


def legend(axes: Axes, handles: Sequence[Artist], labels: Sequence[str]) -> None:
    """Write a legend in one row above the axes, where it can never hide a line."""
    axes.legend(
        handles,
        labels,
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=len(labels),
        frameon=False,
        fontsize=11,
        labelcolor=_INK,
    )


def _plain(value: float, _: int | None = None) -> str:
    return f"{value:.12g}"


def png(figure: Figure) -> bytes:
    """Draw a figure; the same figure gives the same bytes."""
    FigureCanvasAgg(figure)
    file = io.BytesIO()
    # Without the version of matplotlib in it, the same points give the same bytes.
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()
