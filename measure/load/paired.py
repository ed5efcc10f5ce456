"""Compare two loads in pairs of adjacent measurements."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any

from measure.core.comparison import LEVEL, Comparison, compare, fewest_to_claim
from measure.load.summary import LoadPoint

PERCENTILES = ("p50", "p99")

# Sets up the target, and yields a function that measures it once.
Side = Callable[[], AbstractContextManager[Callable[[], LoadPoint]]]


@dataclass(frozen=True, slots=True)
class Duel:
    """Points of two sides; the i-th of each were measured next to each other.

    `comparisons` compare the second's percentiles to the first's, at a level that holds for all of
    them at once. A pair counts if both have the percentile and neither has errors.
    """

    first: tuple[LoadPoint, ...]
    second: tuple[LoadPoint, ...]
    comparisons: dict[str, Comparison]

    @property
    def differs(self) -> bool:
        """Whether any difference is claimed."""
        return any(one.differs for one in self.comparisons.values())

    @property
    def could_differ(self) -> bool:
        """Whether any percentile has enough pairs to claim a difference."""
        return any(one.ratio.pairs >= fewest_pairs() for one in self.comparisons.values())

    def to_json(self) -> dict[str, Any]:
        """Comparisons, and the percentiles of every pair in nanoseconds."""
        return {
            "differs": self.differs,
            "could_differ": self.could_differ,
            "comparisons": self.comparisons,
            "pairs": [
                {f"{name}_ns": [_time_ns(point, name) for point in pair] for name in PERCENTILES}
                for pair in zip(self.first, self.second, strict=True)
            ],
        }


def fewest_pairs() -> int:
    """Pairs below which no difference can be claimed."""
    return fewest_to_claim(len(PERCENTILES))


def duel(sides: tuple[Side, Side], pairs: int) -> Duel:
    """Measure both sides `pairs` times in alternating order, with both restarted for each pair.

    A process that happens to be fast stays fast while it lives: if pairs shared processes, luck
    would look like a difference.
    """
    seen: tuple[list[LoadPoint], list[LoadPoint]] = ([], [])
    for number in range(pairs):
        # Starting first may be an advantage, so the sides alternate.
        order = (0, 1) if number % 2 == 0 else (1, 0)
        with ExitStack() as stack:
            measure = [stack.enter_context(sides[side]()) for side in order]
            for side, one in zip(order, measure, strict=True):
                seen[side].append(one())
    first, second = seen
    comparisons = {}
    for name in PERCENTILES:
        ratios = _pairs(first, second, name)
        if ratios:
            a, b = zip(*ratios, strict=True)
            # Bonferroni, because one claim suffices to call them different.
            comparisons[name] = compare(b, a, LEVEL / len(PERCENTILES))
    return Duel(tuple(first), tuple(second), comparisons)


def _pairs(
    first: Sequence[LoadPoint], second: Sequence[LoadPoint], name: str
) -> list[tuple[float, float]]:
    return [
        (a, b)
        for one, other in zip(first, second, strict=True)
        if (a := _time_ns(one, name)) and (b := _time_ns(other, name))
    ]


def _time_ns(point: LoadPoint, name: str) -> float | None:
    found: int | None = None if point.errors else getattr(point.latency_ns, name)
    return found
