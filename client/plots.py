"""Draw the two plots of a sweep as PNG."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from client.summary import Point

LATENCY_TITLE = "Latency as Batch Size Changes"
LATENCY_LABEL = "latency (seconds before first prediction)"
THROUGHPUT_TITLE = "Throughput as Batch Size Changes"
THROUGHPUT_LABEL = "throughput (predictions/second)"
BATCH_LABEL = "batch size"

_INK, _MUTED, _GRID = "#222222", "#666666", "#dddddd"


@dataclass(frozen=True, slots=True)
class Look:
    """How a mode is drawn everywhere: a hex colour, matplotlib's marker, plotly's symbol."""

    colour: str
    marker: str
    symbol: str


# Okabe, Ito: "Color Universal Design", 2008; told apart with any colour vision.
_LOOKS = {
    "local": Look("#009E73", "o", "circle"),
    "unary": Look("#0072B2", "s", "square"),
    "stream": Look("#D55E00", "^", "triangle-up"),
    "shm": Look("#CC79A7", "D", "diamond"),
}
_SPARE = (
    Look("#E69F00", "v", "triangle-down"),
    Look("#56B4E9", "P", "cross"),
    Look("#999999", "X", "x"),
)


def looks(points: Sequence[Point]) -> dict[str, Look]:
    """Look of each mode among `points`, the known modes first; a mode keeps its look always."""
    return looks_of([point.mode for point in points])


def looks_of(names: Sequence[str]) -> dict[str, Look]:
    """Look of each of the modes that are named, as `looks` has it."""
    modes = list(dict.fromkeys(names))
    known = {mode: look for mode, look in _LOOKS.items() if mode in modes}
    others = [mode for mode in modes if mode not in _LOOKS]
    spare = [*_SPARE, *(look for mode, look in _LOOKS.items() if mode not in modes)]
    return known | {mode: spare[i % len(spare)] for i, mode in enumerate(others)}


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
        p90_s = [_seconds(point.first_prediction_ns.p90) for point in chosen]
        axes.fill_between(sizes, p50_s, p90_s, color=look.colour, alpha=0.18, linewidth=0)
        draw_line(axes, mode, look, sizes, p50_s)
    finish(axes, "lines: median; bands: median to 90th percentile")
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
    axes.set_title(title, fontsize=15, fontweight="bold", color=_INK, pad=34)
    axes.set_xlabel(BATCH_LABEL, fontsize=11, color=_INK, labelpad=8)
    axes.set_ylabel(label, fontsize=11, color=_INK, labelpad=8)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=10)
    axes.xaxis.set_major_locator(FixedLocator([float(tick) for tick in batch_ticks(points)]))
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
    low, high = axes.get_ylim()
    # Where the powers of ten alone would label too little, 2 and 5 are labelled too.
    steps = (1.0, 2.0, 5.0) if high / low < 10**2.5 else (1.0,)
    axes.yaxis.set_major_locator(LogLocator(base=10, subs=steps))
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
    if axes.lines:
        # Above the axes it can never hide a line.
        axes.legend(
            loc="lower center",
            bbox_to_anchor=(0.5, 1.0),
            ncols=len(axes.lines),
            frameon=False,
            fontsize=11,
            labelcolor=_INK,
        )
    else:
        axes.text(0.5, 0.5, "no points", transform=axes.transAxes, ha="center", color=_MUTED)


def _plain(value: float, _: int | None = None) -> str:
    return f"{value:.12g}"


def png(figure: Figure) -> bytes:
    """Draw a figure; the same figure gives the same bytes."""
    FigureCanvasAgg(figure)
    file = io.BytesIO()
    # Without the version of matplotlib in it, the same points give the same bytes.
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()
