"""Describe what all interactive plots share as plotly does: layout, axes, lines."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from measure.presentation.looks import Look
from measure.presentation.plots import NARROW
from measure.sweep.plots import BATCH_LABEL, batch_ticks
from measure.sweep.summary import Point

# Legible on white and on black; the page's own style refines both.
INK, GRID = "#808080", "rgba(128, 128, 128, 0.25)"

Figure = dict[str, Any]

# Plotly 6.3 and newer show it; older versions show the bare number.
HOVER_TITLE = {
    "showspikes": True,
    "unifiedhovertitle": {"text": "<b>batch size %{x}</b>"},
}

# A long legend goes under the plot, which grows by its rows on a phone.
LEGEND_BELOW = {
    # Placed relative to the whole figure, it never covers the title of the axis.
    "legend": {"orientation": "h", "x": 0.5, "xanchor": "center"}
    | {"yref": "container", "y": 0, "yanchor": "bottom"}
    | {"traceorder": "normal", "itemwidth": 44},
    "margin": {"l": 70, "r": 16, "t": 56, "b": 60},
}


def layout_of(title: str) -> dict[str, Any]:
    """Return the layout that all plots share."""
    return {
        "title": {"text": title, "x": 0, "pad": {"l": 12}, "y": 0.97, "yanchor": "top"}
        | {"font": {"size": 15}},
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": INK},
        "paper_bgcolor": "rgba(0, 0, 0, 0)",
        "plot_bgcolor": "rgba(0, 0, 0, 0)",
        "margin": {"l": 70, "r": 16, "t": 84, "b": 60},
        "legend": {"orientation": "h", "x": 0.5, "xanchor": "center", "y": 1, "yanchor": "bottom"}
        | {"traceorder": "normal"},
        "hovermode": "x unified",
    }


def linear_axis(title: str) -> dict[str, Any]:
    """Return an axis with the style that all axes share."""
    return {
        "title": {"text": title, "standoff": 12, "font": {"size": 13}},
        "gridcolor": GRID,
        "zeroline": False,
        "tickfont": {"size": 12},
        "autotickangles": [0, 45, 90],
        "showspikes": False,
        "spikecolor": INK,
        "spikethickness": 1,
        "automargin": True,
    }


def batch_axis(points: Sequence[Point]) -> dict[str, Any]:
    """Return the axis of batch sizes."""
    return (
        linear_axis(BATCH_LABEL)
        | {"type": "log", "hoverformat": "d"}
        | ticks_at(batch_ticks(points))
        | HOVER_TITLE
    )


def log_axis(title: str, values: Iterable[float | None] = ()) -> dict[str, Any]:
    """Return a logarithmic axis for values, None where nothing is drawn.

    It is labelled at 1, 2, 5 and their tenfolds, or at round values where those lie too far apart.
    """
    drawn = [value for value in values if value]
    step: str | float = "D2"
    if drawn and max(drawn) < NARROW * min(drawn):
        step = f"L{_round_step(max(drawn) - min(drawn) or max(drawn)):g}"
    return linear_axis(title) | {"type": "log", "dtick": step, "tickformat": "~r"}


def drawn_in(data: Sequence[Mapping[str, Any]]) -> list[float | None]:
    """Return the heights of everything that is drawn."""
    return [value for trace in data for value in trace["y"]]


def _round_step(span: float) -> float:
    """Return 1, 2 or 5 times a power of ten, at least a fifth of `span`."""
    least = span / 5
    power: float = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least)


def ticks_at(places: Sequence[float]) -> dict[str, Any]:
    """Return the ticks of an axis that is labelled at these places only."""
    return {
        "tickmode": "array",
        "tickvals": list(places),
        "ticktext": [f"{place:.12g}" for place in places],
    }


def line_of(look: Look, x: Sequence[float], y: Sequence[float | None], name: str) -> dict[str, Any]:
    """Return a line with its marks; `name` is markup."""
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "x": list(x),
        "y": list(y),
        "line": {"color": look.colour, "width": 2.5},
        "marker": {"color": look.colour, "symbol": look.symbol, "size": 9},
    }


def band_of(colour: str, edges: Sequence[tuple[float, float, float]], name: str) -> dict[str, Any]:
    """Return the area between two lines, given as x, low and high; shown and hidden with `name`."""
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [x for x, _, _ in edges] + [x for x, _, _ in reversed(edges)],
        "y": [low for _, low, _ in edges] + [high for _, _, high in reversed(edges)],
        "fill": "toself",
        "fillcolor": colour,
        "opacity": 0.18,
        "line": {"width": 0},
        "legendgroup": name,
        "showlegend": False,
        "hoverinfo": "skip",
    }


def mark(axis: str, value: float, text: str) -> dict[str, Any]:
    """Return a dashed line across the plot at a value of one axis, "x" or "y"."""
    other = "y" if axis == "x" else "x"
    return {
        "type": "line",
        f"{axis}0": value,
        f"{axis}1": value,
        f"{other}0": 0,
        f"{other}1": 1,
        f"{other}ref": "paper",
        "line": {"color": INK, "width": 1.5, "dash": "dash"},
        # A label above a line at the top of the plot may not fit; one below it does.
        "label": {"text": text, "textposition": "end", "font": {"size": 12}}
        | ({"yanchor": "top"} if axis == "y" else {}),
    }
