"""Draw the roofs, and the points below them, as PNG."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from client.limits.memory import GIB
from client.limits.placing import Placed
from client.limits.roofs import COPY, GEMM, READ, TCP, UNIX, Roof
from client.limits.subject import Work
from client.looks import looks_of
from client.plots import png

TITLE = "Under the Roofs of the Machine"
X_LABEL = "operations per byte of memory"
Y_LABEL = "GFLOP/second"

Line = tuple[list[float], list[float]]

_PLACES = 101


def lines(roofs: Sequence[Roof], work: Work, span: tuple[float, float]) -> list[tuple[str, Line]]:
    """Return each roof as GFLOP/s over operations per byte, from one end of `span` to the other.

    Memory's rises with the intensity until it meets that of the GEMM. What moves each row once,
    whatever is read with it, is level.
    """
    best = {roof.name: roof.best for roof in roofs}
    low, high = span
    places = [low * (high / low) ** (step / (_PLACES - 1)) for step in range(_PLACES)]
    gib = GIB / 1e9
    slope = [min(best[READ] * gib * place, best[GEMM]) for place in places]
    found = [(f"{READ}, {GEMM}", (places, slope))]
    per_byte = work.flop_per_row / work.row_bytes
    for name in (COPY, TCP, UNIX):
        level = best[name] * gib * per_byte
        found.append((name, ([low, high], [level, level])))
    return found


def span(placed: Sequence[Placed]) -> tuple[float, float]:
    """Intensities from half of the least to twice the most."""
    found = [one.intensity for one in placed]
    return min(found) / 2, max(found) * 2


def figure(roofs: Sequence[Roof], placed: Sequence[Placed], work: Work) -> Figure:
    """All points, by mode, below the roofs."""
    drawn = Figure(figsize=(9, 5.5), dpi=150, facecolor="white", layout="constrained")
    axes = drawn.add_subplot()
    axes.set_title(TITLE, fontsize=15, fontweight="bold")
    axes.set_xlabel(X_LABEL)
    axes.set_ylabel(Y_LABEL)
    axes.set_xscale("log")
    axes.set_yscale("log")
    for style, (name, (x, y)) in zip(
        ("-", "--", "-.", ":"), lines(roofs, work, span(placed)), strict=True
    ):
        axes.plot(x, y, style, color="#444444", linewidth=1.4, label=name)
    for mode, look in looks_of([one.rate.mode for one in placed]).items():
        chosen = [one for one in placed if one.rate.mode == mode]
        axes.plot(
            [one.intensity for one in chosen],
            [one.gflop_per_s for one in chosen],
            look.marker,
            color=look.colour,
            label=mode,
        )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.grid(color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return drawn


def roofline_png(roofs: Sequence[Roof], placed: Sequence[Placed], work: Work) -> bytes:
    """PNG of `figure`."""
    return png(figure(roofs, placed, work))
