"""Draw the roofs, and the points below them, as PNG."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from measure.limits.memory import GIB
from measure.limits.peaks import COPY, GEMM, READ, TCP, UNIX, Roof
from measure.limits.placement import Placed
from measure.limits.subject import Work
from measure.presentation.looks import looks_of
from measure.presentation.plots import canvas, dress, head, label_round, legend_beside, png

TITLE = "Under the Roofs of the Machine"
X_LABEL = "operations per byte of memory"
Y_LABEL = "GFLOP/second"

Line = tuple[list[float], list[float]]

_PLACES = 101


def lines(roofs: Sequence[Roof], work: Work, span: tuple[float, float]) -> list[tuple[str, Line]]:
    """Return each roof as GFLOP/s over operations per byte, from one end of `span` to the other.

    The memory roof rises with the intensity until it meets the GEMM's. Roofs that move each row
    once do not depend on the intensity.
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
    drawn = canvas((9, 5.5))
    axes = drawn.add_subplot()
    head(axes, TITLE, X_LABEL, Y_LABEL, legend_below=False)
    axes.set_xscale("log")
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
    label_round(axes.xaxis)
    dress(axes, "")
    legend_beside(axes, axes.get_legend_handles_labels()[1])
    return drawn


def roofline_png(roofs: Sequence[Roof], placed: Sequence[Placed], work: Work) -> bytes:
    """PNG of `figure`."""
    return png(figure(roofs, placed, work))
