"""Compare two things by the ratio of paired, interleaved measurements."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

_RESAMPLES = 10_000
_CONFIDENCE = 0.95


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


def ratio(a: Sequence[float], b: Sequence[float], seed: int = 0) -> Ratio:
    """Ratio of a to b, whose i-th values were measured next to each other.

    Medians and the 95% percentile bootstrap are taken of log-ratios, so that a/b and b/a agree.
    ValueError for unequal or no pairs, or values that are not over 0.
    """
    if len(a) != len(b) or not a:
        raise ValueError(f"{len(a)} and {len(b)} values came; wanted pairs")
    if min(*a, *b) <= 0:
        raise ValueError(f"a value of {min(*a, *b)} came; wanted values over 0")
    logs = np.array([math.log(x / y) for x, y in zip(a, b, strict=True)])
    draws = np.random.default_rng(seed).integers(0, len(logs), (_RESAMPLES, len(logs)))
    medians = np.median(logs[draws], axis=1)
    low, high = np.quantile(medians, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    return Ratio(
        median=math.exp(float(np.median(logs))),
        low=math.exp(float(low)),
        high=math.exp(float(high)),
        pairs=len(logs),
    )


def interleaved(runs: Sequence[Callable[[], float]], rounds: int) -> list[list[float]]:
    """Values of each run, one a round; every other round goes backwards (ABBA).

    A drift of the machine then favours none of them.
    """
    values: list[list[float]] = [[] for _ in runs]
    for number in range(rounds):
        order = range(len(runs)) if number % 2 == 0 else reversed(range(len(runs)))
        for index in order:
            values[index].append(runs[index]())
    return values
