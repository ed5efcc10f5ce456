"""Compare two things by the ratio of paired, interleaved measurements."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

LEVEL = 0.05
FEWEST_PAIRS = 10
_RESAMPLES = 10_000

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Ratio:
    """Median of a/b over pairs, with a bootstrap interval of that median."""

    median: float
    low: float
    high: float
    pairs: int

    @property
    def differs(self) -> bool:
        """Whether the interval excludes 1: only then is a difference claimed."""
        return self.low > 1 or self.high < 1


def ratio(
    a: Sequence[float], b: Sequence[float], seed: int = 0, confidence: float = 1 - LEVEL
) -> Ratio:
    """Ratio of a to b, whose i-th values were measured next to each other.

    Medians and the percentile bootstrap (95% unless told) are taken of log-ratios, so that a/b and
    b/a agree. ValueError for unequal or no pairs, or values that are not over 0.
    """
    if len(a) != len(b) or not a:
        raise ValueError(f"got {len(a)} and {len(b)} values, expected pairs")
    if min(*a, *b) <= 0:
        raise ValueError(f"got a value of {min(*a, *b)}, expected values over 0")
    logs = np.array([math.log(x / y) for x, y in zip(a, b, strict=True)])
    draws = np.random.default_rng(seed).integers(0, len(logs), (_RESAMPLES, len(logs)))
    medians = np.median(logs[draws], axis=1)
    low, high = np.quantile(medians, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Ratio(
        median=math.exp(float(np.median(logs))),
        low=math.exp(float(low)),
        high=math.exp(float(high)),
        pairs=len(logs),
    )


def unpaired_ratio(
    a: Sequence[float], b: Sequence[float], seed: int = 0, confidence: float = 1 - LEVEL
) -> Ratio:
    """Ratio of the median of a to that of b, which were measured apart.

    The interval is the percentile bootstrap's, either side drawn for itself; `pairs` is the smaller
    number of values. ValueError for none, or values that are not over 0.
    """
    if not a or not b or min(*a, *b) <= 0:
        raise ValueError(f"got {len(a)} and {len(b)} values, expected values over 0 of both")
    generator = np.random.default_rng(seed)
    sides = [np.log(np.array(values, float)) for values in (a, b)]
    drawn = [
        np.median(side[generator.integers(0, len(side), (_RESAMPLES, len(side)))], axis=1)
        for side in sides
    ]
    low, high = np.quantile(drawn[0] - drawn[1], [(1 - confidence) / 2, (1 + confidence) / 2])
    return Ratio(
        median=math.exp(float(np.median(sides[0]) - np.median(sides[1]))),
        low=math.exp(float(low)),
        high=math.exp(float(high)),
        pairs=min(len(a), len(b)),
    )


@dataclass(frozen=True, slots=True)
class Comparison:
    """A ratio, the p-value of its sign test, and whether a difference is claimed."""

    ratio: Ratio
    p_value: float
    differs: bool


def compare(a: Sequence[float], b: Sequence[float], level: float = LEVEL) -> Comparison:
    """Compare a to b, whose i-th values were measured next to each other.

    A difference is claimed where the interval of the ratio excludes 1, the sign test passes at the
    same level, and there are at least ten pairs. ValueError as `ratio`.
    """
    found, p_value = ratio(a, b, confidence=1 - level), sign_test(a, b)
    differs = found.differs and p_value <= level and found.pairs >= FEWEST_PAIRS
    return Comparison(found, p_value, differs)


def sign_test(a: Sequence[float], b: Sequence[float]) -> float:
    """Two-sided p-value of the exact sign test that the median of a/b is 1.

    It takes the pairs to be independent and nothing else; pairs that are equal say nothing.
    """
    above = sum(x > y for x, y in zip(a, b, strict=True))
    below = sum(x < y for x, y in zip(a, b, strict=True))
    told = above + below
    tail = sum(math.comb(told, k) for k in range(min(above, below) + 1))
    return min(1.0, math.ldexp(tail, 1 - told))


def fewest_pairs(comparisons: int, level: float) -> int:
    """Pairs below which the sign test cannot pass even where all agree.

    Each of the comparisons has its part of `level`, so that no more is the chance of any error.
    """
    return math.ceil(1 + math.log2(comparisons / level))


def fewest_to_claim(comparisons: int, level: float = LEVEL) -> int:
    """Pairs below which `compare` can claim no difference, `comparisons` sharing the level.

    With so many that all agree, the sign test passes, and the bootstrap of values on one side of 1
    has no draw on the other.
    """
    return max(fewest_pairs(max(comparisons, 1), level), FEWEST_PAIRS)


def interleaved(runs: Sequence[Callable[[], Value]], rounds: int) -> list[list[Value]]:
    """Values of each run, one a round; every other round goes backwards (ABBA).

    A drift of the machine then favours none of them.
    """
    values: list[list[Value]] = [[] for _ in runs]
    for number in range(rounds):
        order = range(len(runs)) if number % 2 == 0 else reversed(range(len(runs)))
        for index in order:
            values[index].append(runs[index]())
    return values
