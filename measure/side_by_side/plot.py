"""Draw every system's throughput over batch size as PNG."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace

from measure.presentation.looks import MODES, OTHERS, Look
from measure.presentation.plots import canvas, draw_line, dress, head, label_at, legend_beside, png
from measure.side_by_side.names import label
from measure.side_by_side.rounds import Cell

TITLE = "Throughput of every system over batch size"
_LIMIT = "#777777"
_RAW = (Look(_LIMIT, "^", "triangle-up"), Look(_LIMIT, "s", "square"))
# In drawing order; the client's modes look as they do elsewhere.
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

    perf_analyzer's results are omitted: two requests at a time are another experiment.
    """
    figure = canvas((10, 6))
    axes = figure.add_subplot()
    head(axes, TITLE, "batch size", "throughput (predictions/second)", legend_below=False)
    axes.set_xscale("log", base=2)
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
        sizes, rates = zip(*points, strict=True)
        dashes = "--" if kind == "limit" else "-"
        draw_line(axes, label(system), look, sizes, rates, width=_WIDTHS[kind], style=dashes)
        ends.append((rates[-1], label(system)))
    label_at(axes, sorted({cell.batch_size for cell in cells}))
    dress(axes, "")
    # In the order of the lines' right ends, so that labels align with lines.
    legend_beside(axes, [name for _, name in sorted(ends, reverse=True)])
    return png(figure)
