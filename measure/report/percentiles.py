"""Show how times are spread: percentile curves, and histograms as tables."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from measure.core.confidence import CONFIDENCE
from measure.engine.histogram import Histogram
from measure.report.axes import LEGEND_BELOW, Figure, drawn_in, layout_of, linear_axis, log_axis
from measure.report.section import Row, Table

CURVES_TITLE = "Latency by Percentile"

_CURVE_POINTS = 60
_MOST_BUCKETS = 16
_TICKS = (0, 50, 90, 99, 99.9, 99.99, 99.999)
# Lines of one colour differ in their strokes, and grow stronger in the order given.
_DASHES = ("solid", "dash", "dashdot", "dot")
_FAINTEST = 0.45


@dataclass(frozen=True, slots=True)
class Distribution:
    """Times in nanoseconds, rising and distinct, int64 `[n]`, and how often each was seen.

    `colour` is that of the mode which took them.
    """

    label: str
    colour: str
    times_ns: NDArray[np.int64]
    counts: NDArray[np.int64]

    @property
    def samples(self) -> int:
        """How many times were seen."""
        return int(self.counts.sum())


def of_times(label: str, colour: str, times_ns: Sequence[int]) -> Distribution:
    """Return the distribution of times as they were measured."""
    times, counts = np.unique(np.array(times_ns, np.int64), return_counts=True)
    return Distribution(label, colour, times, counts)


def of_histogram(label: str, colour: str, encoded: str) -> Distribution:
    """Return the distribution of an HDR histogram, encoded; ValueError when it is none."""
    times, counts = Histogram.decode(encoded).counts()
    return Distribution(label, colour, np.array(times, np.int64), np.array(counts, np.int64))


def curves(distributions: Sequence[Distribution]) -> Figure | None:
    """Latency by percentile, up to the last one that the samples support.

    The axis stretches the slow end: each further nine takes the same width. None if no distribution
    has enough samples for a median.
    """
    known = [one for one in distributions if _last_percentile(one.samples) >= 50]
    of_colour = Counter(one.colour for one in known)
    seen: Counter[str] = Counter()
    data = []
    for one in known:
        last = _last_percentile(one.samples)
        number = seen[one.colour]
        seen[one.colour] += 1
        strength = (number + 1) / of_colour[one.colour]
        places = np.geomspace(1, stretched(last), _CURVE_POINTS)
        ranks = np.ceil((1 - 1 / places) * one.samples).clip(1).astype(np.int64)
        times = one.times_ns[np.searchsorted(np.cumsum(one.counts), ranks)]
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": escape(one.label),
                "x": places.tolist(),
                "y": (times / 1e6).tolist(),
                "customdata": [f"p{100 - 100 / x:.4g}" for x in places],
                "line": {
                    "color": one.colour,
                    "dash": _DASHES[(of_colour[one.colour] - 1 - number) % len(_DASHES)],
                    "width": 2,
                },
                "opacity": _FAINTEST + (1 - _FAINTEST) * strength,
                "hovertemplate": "%{customdata}: %{y:.3~g} ms",
            }
        )
    return drawn(data) if data else None


def stretched(percentile: float) -> float:
    """Place of a percentile below 100 on the axis of `drawn`."""
    return 100 / (100 - percentile)


def drawn(data: Sequence[dict[str, Any]]) -> Figure:
    """Figure of lines whose x are `stretched` percentiles, and y milliseconds."""
    ticks = {
        "type": "log",
        "tickmode": "array",
        "tickvals": [stretched(p) for p in _TICKS],
        "ticktext": [f"{p:g}%" for p in _TICKS],
    }
    layout = {
        "hovermode": "closest",
        "showlegend": True,
        "xaxis": linear_axis("share of requests") | ticks,
        "yaxis": log_axis("latency (milliseconds)", drawn_in(data)),
    }
    return {"data": list(data), "layout": layout_of(CURVES_TITLE) | LEGEND_BELOW | layout}


def histograms(distributions: Sequence[Distribution], what: str) -> Table:
    """Table of how many samples took how long, folded; times in microseconds."""
    return Table(
        heading="Histograms",
        columns=(what, "from, µs", "to, µs", "samples", "share", "up to here"),
        groups=[list(_buckets(one)) for one in distributions if one.samples],
        note="Buckets grow by the same factor; those without samples are left out.",
        folded=True,
    )


def _last_percentile(samples: int) -> float:
    """Highest percentile below the largest of so many samples, with CONFIDENCE."""
    return 100 * math.pow(1 - CONFIDENCE, 1 / samples) if samples else 0.0


def _buckets(one: Distribution) -> list[Row]:
    low, high = max(int(one.times_ns[0]), 1), int(one.times_ns[-1]) + 1
    edges = np.geomspace(low, high, _MOST_BUCKETS + 1)
    places = np.searchsorted(edges, one.times_ns, side="right").clip(1, _MOST_BUCKETS)
    rows: list[Row] = []
    seen = 0
    for place in range(1, _MOST_BUCKETS + 1):
        count = int(one.counts[places == place].sum())
        if not count:
            continue
        seen += count
        rows.append(
            (
                one.label,
                f"{edges[place - 1] / 1e3:,.1f}",
                f"{edges[place] / 1e3:,.1f}",
                f"{count:,}",
                f"{count / one.samples:.2%}",
                f"{seen / one.samples:.2%}",
            )
        )
    return rows
