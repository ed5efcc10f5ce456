"""Compute when the requests of an open loop are due."""

import itertools
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Literal

import numpy as np

from measure.engine import ramp
from measure.engine.ramp import Stage

Arrivals = Literal["constant", "poisson"]
ARRIVALS: tuple[Arrivals, ...] = ("constant", "poisson")

_BLOCK = 1024


def due_times_ns(
    arrivals: Arrivals, rate_per_s: float, seed: int = 0, part: int = 0, parts: int = 1
) -> Iterator[int]:
    """Endless, non-decreasing due times in nanoseconds since the start.

    All `parts` together make `rate_per_s`: at a constant rate, each part takes every `parts`-th
    request; Poisson parts are independent processes.
    """
    if arrivals == "constant":
        return _constant(rate_per_s, part, parts)
    return map(int, _poisson(1e9 * parts / rate_per_s, np.random.default_rng([seed, part])))


def ramp_due_times_ns(
    arrivals: Arrivals, stages: Sequence[Stage], seed: int = 0, part: int = 0, parts: int = 1
) -> Iterator[int]:
    """As `due_times_ns`, at the rates of `stages`; the last rate goes on without end."""
    if arrivals == "constant":
        return ramp.due_ns(itertools.count(part, parts), stages)
    return ramp.due_ns(_poisson(parts, np.random.default_rng([seed, part])), stages)


def _constant(rate_per_s: float, part: int, parts: int) -> Iterator[int]:
    # Exact arithmetic, so that an odd rate does not drift over hours.
    interval_ns = 10**9 / Fraction(rate_per_s)
    for number in itertools.count(part, parts):
        yield int(number * interval_ns)


def _poisson(mean_gap: float, random: np.random.Generator) -> Iterator[float]:
    at = 0.0
    while True:
        for gap in random.exponential(mean_gap, _BLOCK).tolist():
            at += gap
            yield at
