"""The colours, marks and strokes of modes, percentiles and anything else with a name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Look:
    """The look of a named series: a hex colour, matplotlib's marker, plotly's symbol."""

    colour: str
    marker: str
    symbol: str


@dataclass(frozen=True, slots=True)
class Stroke:
    """A dash pattern: matplotlib's name, and plotly's."""

    style: Literal["-", "--", "-.", ":"]
    dash: str


# Okabe, Ito: "Color Universal Design", 2008; distinguishable with any colour vision.
MODES: Mapping[str, Look] = {
    "local": Look("#009E73", "o", "circle"),
    "unary": Look("#0072B2", "s", "square"),
    "stream": Look("#D55E00", "^", "triangle-up"),
    "shm": Look("#CC79A7", "D", "diamond"),
}
# Anything else has other colours. All are legible on white and on black.
OTHERS = (
    Look("#E69F00", "v", "triangle-down"),
    Look("#56B4E9", "P", "cross"),
    Look("#999999", "X", "x"),
    Look("#9467BD", "<", "triangle-left"),
    Look("#A0622D", ">", "triangle-right"),
    Look("#A3A500", "*", "star"),
)
PERCENTILES: Mapping[str, Stroke] = {
    "p50": Stroke("-", "solid"),
    "p90": Stroke("--", "dash"),
    "p99": Stroke("-.", "dashdot"),
    "p99_9": Stroke(":", "dot"),
}


def looks_of(names: Sequence[str]) -> dict[str, Look]:
    """Look of each name, modes first; a mode always has the same look."""
    distinct = list(dict.fromkeys(names))
    known = {mode: look for mode, look in MODES.items() if mode in distinct}
    others = [name for name in distinct if name not in MODES]
    return known | {name: OTHERS[i % len(OTHERS)] for i, name in enumerate(others)}


def colour_of(mode: str) -> str:
    """Colour of a mode, whatever else is drawn."""
    return looks_of([mode])[mode].colour
