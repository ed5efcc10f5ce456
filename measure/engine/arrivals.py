"""Compute when the requests of an open loop are due."""

import itertools
from collections.abc import Iterator
from fractions import Fraction
from typing import Literal

import numpy as np

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
    return _poisson(rate_per_s / parts, np.random.default_rng([seed, part]))


def _constant(rate_per_s: float, part: int, parts: int) -> Iterator[int]:
    # Exact arithmetic, so that an odd rate does not drift over hours.
    interval_ns = 10**9 / Fraction(rate_per_s)
    for number in itertools.count(part, parts):
        yield int(number * interval_ns)


def _poisson(rate_per_s: float, random: np.random.Generator) -> Iterator[int]:
    at_ns = 0.0
    while True:
        for gap_ns in random.exponential(1e9 / rate_per_s, _BLOCK).tolist():
            at_ns += gap_ns
            yield int(at_ns)
