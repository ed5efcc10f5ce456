"""Find the highest rate that meets a bound, where a trial may be inconclusive."""

from collections.abc import Callable
from dataclasses import dataclass

_FACTOR = 2.0
_MOST_STEPS_DOWN = 6
_MOST_TRIALS = 24


@dataclass(frozen=True, slots=True)
class Found:
    """The highest rate that met the bound and the lowest that missed it; None if there is none.

    `untold` is a rate that was inconclusive twice, which ended the search.
    """

    met: float | None
    missed: float | None
    untold: float | None = None


def highest_rate(
    meets: Callable[[float], bool | None], start: float, precision: float, most: float
) -> Found:
    """Double or halve from `start`, then bisect until the rates are within `precision`.

    `meets` returns whether a rate meets the bound; None: inconclusive, and the rate is tried once
    more. With `precision` 0.05 the lowest missed rate is within 5% of the highest met. No rate over
    `most` is tried.
    """
    met: float | None = None
    missed: float | None = None
    for _ in range(_MOST_TRIALS):
        rate = _next(met, missed, start, precision, most)
        if rate is None:
            break
        verdict = meets(rate)
        if verdict is None:
            verdict = meets(rate)
        if verdict is None:
            return Found(met, missed, rate)
        if verdict:
            met = rate
        else:
            missed = rate
    return Found(met, missed)


def _next(
    met: float | None, missed: float | None, start: float, precision: float, most: float
) -> float | None:
    if met is None and missed is None:
        return min(start, most)
    if met is None:
        assert missed is not None
        lower = missed / _FACTOR
        return lower if lower >= start / _FACTOR**_MOST_STEPS_DOWN else None
    if missed is None:
        return min(met * _FACTOR, most) if met < most else None
    return None if missed <= met * (1 + precision) else float((met * missed) ** 0.5)
