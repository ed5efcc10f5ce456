"""What all interactive plots have in common: layout, axes, lines, as plotly describes them."""

from collections.abc import Sequence
from typing import Any

from client.plots import BATCH_LABEL, Look, batch_ticks
from client.summary import Point

# Legible on white, legible on black: the page's own style refines both.
INK, GRID = "#808080", "rgba(128, 128, 128, 0.25)"

Figure = dict[str, Any]

# Plotly 6.3 shows it; what came before shows the bare number.
HOVER_TITLE = {
    "showspikes": True,
    "unifiedhovertitle": {"text": "<b>batch size %{x}</b>"},
}

# Where a long legend goes: under the plot, which on a phone makes room for its rows by itself.
LEGEND_BELOW = {
    "legend": {"orientation": "h", "x": 0.5, "xanchor": "center", "y": -0.22, "yanchor": "top"}
    | {"traceorder": "normal"},
    "margin": {"l": 70, "r": 16, "t": 56, "b": 60},
}


def layout_of(title: str) -> dict[str, Any]:
    """Return what all plots have in common."""
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
    """Return an axis with what all of them have in common."""
    return {
        "title": {"text": title, "standoff": 12},
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
    ticks = batch_ticks(points)
    return (
        linear_axis(BATCH_LABEL)
        | {"type": "log", "tickmode": "array", "hoverformat": "d"}
        | {"tickvals": ticks, "ticktext": [str(tick) for tick in ticks]}
        | HOVER_TITLE
    )


def log_axis(title: str) -> dict[str, Any]:
    """Return a logarithmic axis."""
    return linear_axis(title) | {"type": "log", "dtick": "D2", "tickformat": "~r"}


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
        "line": {"color": "#808080", "width": 1.5, "dash": "dash"},
        # Below a line at the top of the plot there is room, above it there may be none.
        "label": {"text": text, "textposition": "end", "font": {"size": 12}}
        | ({"yanchor": "top"} if axis == "y" else {}),
    }
