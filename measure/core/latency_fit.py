"""Fit a straight line to latency over batch size, and derive crossovers and peaks from it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Two points are on a line whatever they are, which then says nothing of those between or beyond.
FEWEST_SIZES = 3
_RESAMPLES = 1000
_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Fit:
    """L(B) = alpha + beta * B, in nanoseconds: alpha per batch, beta per row.

    The errors are relative, over the batch sizes: root mean square, and largest; NaN with too few
    batch sizes.
    """

    alpha_ns: float
    beta_ns: float
    rms_error: float
    worst_error: float

    @property
    def half_peak_rows(self) -> float:
        """Batch size at which throughput is half of its limit; inf if there is no limit."""
        return self.alpha_ns / self.beta_ns if self.beta_ns > 0 else math.inf

    @property
    def near_peak_rows(self) -> float:
        """Batch size at which throughput is 90% of the peak."""
        return 9 * self.half_peak_rows

    def latency_ns(self, rows: float) -> float:
        """Predicted latency of a batch of `rows`, in nanoseconds."""
        return self.alpha_ns + self.beta_ns * rows


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95% bootstrap interval; inf where unbounded."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Crossover:
    """The batch size at which two lines cross, and the share of resamples that cross in range.

    `rows` is None if they do not cross within the measured batch sizes.
    """

    rows: Estimate | None
    share: float

    @property
    def established(self) -> bool:
        """Whether nearly every resample has a crossover; one is claimed only then."""
        return self.rows is not None and self.share >= _CONFIDENCE

    @property
    def excluded(self) -> bool:
        """Whether almost no resample has a crossover."""
        return self.rows is None and self.share <= 1 - _CONFIDENCE


def fit(batch_sizes: Sequence[int], latencies_ns: Sequence[float]) -> Fit:
    """Fit a line by least squares of relative errors, both coefficients at least 0.

    ValueError for fewer than three batch sizes, or latencies that are not positive.
    """
    if len(set(batch_sizes)) < FEWEST_SIZES:
        raise ValueError(
            f"cannot fit a line: got batch sizes {list(batch_sizes)}, "
            f"expected {FEWEST_SIZES} that differ"
        )
    if len(batch_sizes) != len(latencies_ns) or min(latencies_ns) <= 0:
        raise ValueError(
            f"cannot fit a line: got latencies {list(latencies_ns)}, "
            f"expected one over 0 for each of {len(batch_sizes)} sizes"
        )
    (found,) = _fits(np.array(batch_sizes, float), np.array([latencies_ns], float))
    return found


def through(batch_sizes: Sequence[int], latencies_ns: Sequence[float]) -> Fit:
    """Line through one or two batch sizes, which leave no error to estimate."""
    sizes, latencies = np.array(batch_sizes, float), np.array([latencies_ns], float)
    if len(batch_sizes) == 1:
        return Fit(float(latencies_ns[0]), 0.0, math.nan, math.nan)
    (found,) = _fits(sizes, latencies)
    return replace(found, rms_error=math.nan, worst_error=math.nan)


def crossing(a: Fit, b: Fit, low: float, high: float) -> float | None:
    """Batch size from `low` to `high` at which the lines cross; None if they do not."""
    slope = a.beta_ns - b.beta_ns
    if slope == 0:
        return None
    rows = (b.alpha_ns - a.alpha_ns) / slope
    return rows if low <= rows <= high else None


def resampled(batch_sizes: Sequence[int], runs: Sequence[Floats], seed: int = 0) -> list[list[Fit]]:
    """Fits of resampled rounds, one list per thing that was measured.

    `runs`: nanoseconds `[batch sizes, rounds]` of each. All runs are resampled with the same
    rounds, so that a disturbance of a whole round does not count as a difference.
    """
    rounds = runs[0].shape[1]
    shape = (_RESAMPLES, len(batch_sizes), rounds)
    drawn = np.random.default_rng(seed).integers(0, rounds, shape)
    rows = np.arange(len(batch_sizes))[:, None]
    sizes = np.array(batch_sizes, float)
    return [_fits(sizes, np.median(values[rows, drawn], axis=-1)) for values in runs]


def estimate(fitted: Fit, resamples: Sequence[Fit], read: Callable[[Fit], float]) -> Estimate:
    """Value that `read` extracts from a fit, with its interval over the resamples."""
    low, high = _interval([read(one) for one in resamples])
    return Estimate(read(fitted), low, high)


def crossover(
    a: Fit, b: Fit, resamples: Sequence[tuple[Fit, Fit]], low: float, high: float
) -> Crossover:
    """Crossing of two lines from `low` to `high`, with an interval over resamples that cross."""
    found = [crossing(one, other, low, high) for one, other in resamples]
    inside = [rows for rows in found if rows is not None]
    rows = crossing(a, b, low, high)
    share = len(inside) / len(found)
    return Crossover(Estimate(rows, *_interval(inside)) if rows and inside else None, share)


def _interval(values: Sequence[float]) -> tuple[float, float]:
    # Pick an actual draw: interpolating between infinities gives NaN.
    low, high = np.quantile(
        values, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2], method="inverted_cdf"
    )
    return float(low), float(high)


def _fits(sizes: Floats, latencies: Floats) -> list[Fit]:
    """Fit each row of latencies `[n, sizes]`."""
    # Divide each equation by its latency, so that relative errors of 1 row and 1024 weigh the same.
    per_batch, per_row = 1 / latencies, sizes / latencies
    alpha, beta = _not_negative(per_batch, per_row)
    errors = np.abs(alpha[:, None] * per_batch + beta[:, None] * per_row - 1)
    rms, worst = np.sqrt(np.mean(errors**2, axis=1)), errors.max(axis=1)
    return [Fit(*map(float, one)) for one in zip(alpha, beta, rms, worst, strict=True)]


def _not_negative(u: Floats, v: Floats) -> tuple[Floats, Floats]:
    """Least squares of alpha * u + beta * v = 1 with neither below 0, for each row."""
    uu, uv, vv = (u * u).sum(1), (u * v).sum(1), (v * v).sum(1)
    u1, v1 = u.sum(1), v.sum(1)
    determinant = uu * vv - uv * uv
    alpha = (u1 * vv - v1 * uv) / determinant
    beta = (v1 * uu - u1 * uv) / determinant
    # The problem is convex: if the unconstrained optimum is negative, the best lies on an axis.
    free, flat = alpha >= 0, beta < 0
    return (
        np.where(flat, u1 / uu, np.where(free, alpha, 0)),
        np.where(flat, 0, np.where(free, beta, v1 / vv)),
    )
