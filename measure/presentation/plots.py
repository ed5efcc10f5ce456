"""One style for every picture: title, axes, lines, legend, and the PNG itself.

Matplotlib takes as long to import as all else that a command needs, so it is imported for the
first picture.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from measure.presentation.looks import Look

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# Values within this factor are labelled as on a linear scale.
NARROW = 4
INK, MUTED = "#222222", "#666666"
_GRID = "#dddddd"


def part(name: str) -> Any:
    """A module of matplotlib."""
    return importlib.import_module(f"matplotlib.{name}")


def canvas(size: tuple[float, float] = (8, 5), dpi: int = 150) -> Figure:
    """An empty figure, `size` in inches."""
    figure: Figure = part("figure").Figure(figsize=size, dpi=dpi, facecolor="white")
    figure.set_layout_engine("constrained", w_pad=0.15, h_pad=0.12)
    return figure


def head(axes: Axes, title: str, x_label: str, y_label: str, *, legend_below: bool = True) -> None:
    """Set the title of axes, room for a legend below it or not, labels and a log scale."""
    pad = 34 if legend_below else 14
    axes.set_title(title, fontsize=15, fontweight="bold", color=INK, pad=pad)
    axes.set_xlabel(x_label, fontsize=11, color=INK, labelpad=8)
    axes.set_ylabel(y_label, fontsize=11, color=INK, labelpad=8)
    axes.set_yscale("log", base=10)


def label_at(axes: Axes, places: Sequence[float]) -> None:
    """Label the horizontal axis at exactly these positions."""
    ticker = part("ticker")
    axes.xaxis.set_major_locator(ticker.FixedLocator([float(place) for place in places]))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(_plain))
    axes.xaxis.set_minor_locator(ticker.NullLocator())


def draw_line(
    axes: Axes,
    name: str,
    look: Look,
    x: Sequence[float],
    y: Sequence[float],
    *,
    width: float = 2,
    style: str = "-",
) -> None:
    """Draw a line with markers, as `name` in the legend; `width` in points."""
    axes.plot(
        x,
        y,
        style,
        color=look.colour,
        marker=look.marker,
        markersize=6.5,
        markeredgecolor="white",
        markeredgewidth=0.8,
        linewidth=width,
        label=name,
    )


def finish(axes: Axes, note: str) -> None:
    """Finish a drawn figure: axis labels, grid, legend, and a note below."""
    dress(axes, note)
    if axes.lines:
        legend(axes, *axes.get_legend_handles_labels())
    else:
        axes.text(0.5, 0.5, "no points", transform=axes.transAxes, ha="center", color=MUTED)


def label_round(axis: Axis) -> None:
    """Label an axis at round values within the drawn range."""
    low, high = axis.get_view_interval()
    # If powers of ten alone give too few labels, label 2 and 5 too; if even those may lie outside,
    # any round value.
    steps = (1.0, 2.0, 5.0) if high / low < 10**2.5 else (1.0,)
    narrow = high / low < NARROW
    ticker = part("ticker")
    axis.set_major_locator(
        ticker.MaxNLocator(6) if narrow else ticker.LogLocator(base=10, subs=steps)
    )
    axis.set_major_formatter(ticker.FuncFormatter(_plain))
    axis.set_minor_locator(ticker.NullLocator())


def dress(axes: Axes, note: str) -> None:
    """Add the grid, labels at round values within the drawn range, and a note below."""
    label_round(axes.yaxis)
    frame(axes, note)


def frame(axes: Axes, note: str) -> None:
    """Add the grid and a note below."""
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#aaaaaa")
    axes.tick_params(colors=INK, labelsize=10, length=0, pad=6)
    axes.annotate(
        note,
        (1, 0),
        (0, -50),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="right",
        fontsize=8.5,
        color=MUTED,
    )


def legend(axes: Axes, handles: Sequence[Artist], labels: Sequence[str]) -> None:
    """Draw the legend in one row above the axes, where it cannot hide a line."""
    axes.legend(
        handles,
        labels,
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=len(labels),
        frameon=False,
        fontsize=11,
        labelcolor=INK,
    )


def legend_beside(axes: Axes, order: Sequence[str]) -> None:
    """Draw the legend right of the axes, for more lines than fit in one row above."""
    handles, labels = axes.get_legend_handles_labels()
    by_label = dict(zip(labels, handles, strict=True))
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.legend(
        [by_label[label] for label in order],
        order,
        loc="outside right center",
        frameon=False,
        fontsize=10,
        labelcolor=INK,
        handlelength=3,
    )


def _plain(value: float, _: int | None = None) -> str:
    return f"{value:.12g}"


def png(figure: Figure) -> bytes:
    """Render a figure; equal figures give equal bytes."""
    part("backends.backend_agg").FigureCanvasAgg(figure)
    file = io.BytesIO()
    # Omit matplotlib's version, so that equal points give equal bytes.
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()
