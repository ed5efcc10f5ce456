"""Distinguish growth from noise in a series of measurements."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_RESAMPLES = 2000
_CONFIDENCE = 0.95
FEWEST = 8


@dataclass(frozen=True, slots=True)
class Slope:
    """Growth per step, the median of the slopes between all pairs, with its 95% interval."""

    per_step: float
    low: float
    high: float
    points: int

    @property
    def grows(self) -> bool:
        """Whether the interval lies above 0."""
        return self.low > 0

    @property
    def holds_zero(self) -> bool:
        """Whether the interval contains 0."""
        return self.low <= 0 <= self.high


def slope(steps: Sequence[float], values: Sequence[float], seed: int = 0) -> Slope:
    """Theil-Sen slope of values over steps; ValueError for fewer than 8 or unequal counts.

    A page allocated late hardly moves a median (Sen: Estimates of the regression coefficient based
    on Kendall's tau, JASA 63(324), 1968). The interval is that of a bootstrap which draws the
    changes from each value to the next, in blocks of the root of their number (Kuensch: The
    jackknife and the bootstrap for general stationary observations, Ann. Statist. 17(3), 1989), and
    adds them up again. Memory grows in steps that stay: a bootstrap of residuals around a line
    would report a single step as a slope.
    """
    if len(steps) != len(values) or len(steps) < FEWEST:
        raise ValueError(
            f"got {len(steps)} steps and {len(values)} values, expected {FEWEST} pairs"
        )
    x, y = np.asarray(steps, np.float64), np.asarray(values, np.float64)
    per_step = _theil_sen(x, y)
    changes = np.diff(np.stack((x, y)))
    count = changes.shape[1]
    block = round(count**0.5)
    blocks = -(-count // block)
    generator = np.random.default_rng(seed)
    starts = generator.integers(0, count - block + 1, (_RESAMPLES, blocks))
    drawn = (starts[:, :, np.newaxis] + np.arange(block)).reshape(_RESAMPLES, -1)[:, :count]
    slopes = [_theil_sen(*np.cumsum(changes[:, chosen], axis=1)) for chosen in drawn]
    low, high = np.quantile(slopes, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    return Slope(per_step, min(float(low), per_step), max(float(high), per_step), len(x))


def _theil_sen(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    first, second = np.triu_indices(len(x), 1)
    return float(np.median((y[second] - y[first]) / (x[second] - x[first])))
