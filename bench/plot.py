"""Draw every system's throughput over batch size as PNG."""

import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from bench.names import label
from bench.rounds import Cell
from client.looks import MODES, OTHERS, Look

TITLE = "Throughput of every system over batch size"
_INK, _GRID = "#222222", "#dddddd"
_LIMIT = "#777777"
_RAW = (Look(_LIMIT, "^", "triangle-up"), Look(_LIMIT, "s", "square"))
# In the order in which they are drawn; what is a mode of the client looks as it does elsewhere.
LOOKS = {
    "local": MODES["local"],
    "raw_tcp": _RAW[0],
    "raw_unix": _RAW[1],
    "unary": MODES["unary"],
    "stream": MODES["stream"],
    "shm": MODES["shm"],
    "triton": OTHERS[3],
    "triton_shm": replace(OTHERS[3], marker="P"),
    "kserve": OTHERS[0],
    "mlserver": OTHERS[1],
    "plain_grpcio": OTHERS[4],
}
_WIDTHS = {"limit": 1.4, "service": 2.6, "peer": 1.5}


def throughput_png(cells: Sequence[Cell], kinds: Mapping[str, str]) -> bytes:
    """Median rates in examples per second, log-log; limits dashed, this service drawn thicker.

    What perf_analyzer measured is left out: two requests at a time are another experiment.
    """
    figure = Figure(figsize=(10, 6), dpi=150, facecolor="white")
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.12)
    axes = figure.add_subplot()
    axes.set_title(TITLE, fontsize=15, fontweight="bold", color=_INK, pad=14)
    axes.set_xlabel("batch size", fontsize=11, color=_INK, labelpad=8)
    axes.set_ylabel("throughput (predictions/second)", fontsize=11, color=_INK, labelpad=8)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=10)
    ends: list[tuple[float, str]] = []
    for system, look in LOOKS.items():
        points = sorted(
            (cell.batch_size, statistics.median(cell.rows_per_s))
            for cell in cells
            if cell.system == system and cell.rows_per_s
        )
        if not points:
            continue
        kind = kinds.get(system, "peer")
        axes.plot(
            [size for size, _ in points],
            [rate for _, rate in points],
            color=look.colour,
            marker=look.marker,
            markersize=7 if kind == "service" else 5.5,
            markeredgecolor="white",
            markeredgewidth=0.7,
            linewidth=_WIDTHS[kind],
            linestyle="--" if kind == "limit" else "-",
            label=label(system),
        )
        ends.append((points[-1][1], label(system)))
    _axes(figure, [cell.batch_size for cell in cells], ends)
    return _png(figure)


def _axes(figure: Figure, sizes: Sequence[int], ends: Sequence[tuple[float, str]]) -> None:
    (axes,) = figure.axes
    axes.xaxis.set_major_locator(FixedLocator([float(size) for size in sorted(set(sizes))]))
    axes.xaxis.set_major_formatter(FuncFormatter(_plain))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(_plain))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#aaaaaa")
    axes.tick_params(colors=_INK, labelsize=10, length=0, pad=6)
    if axes.lines:
        # In the order in which the lines end, so that the eye goes straight across.
        order = [name for _, name in sorted(ends, reverse=True)]
        handles, names = axes.get_legend_handles_labels()
        by_name = dict(zip(names, handles, strict=True))
        figure.legend(
            [by_name[name] for name in order],
            order,
            loc="outside right center",
            frameon=False,
            fontsize=10,
            labelcolor=_INK,
            handlelength=3,
        )


def _plain(value: float, _: int | None = None) -> str:
    return f"{value:,.12g}"


def _png(figure: Figure) -> bytes:
    FigureCanvasAgg(figure)
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()
