"""Find the highest rate that meets a bound, where each trial may also fail to tell."""

from collections.abc import Callable
from dataclasses import dataclass

_FACTOR = 2.0
_MOST_STEPS_DOWN = 6
_MOST_TRIALS = 24


@dataclass(frozen=True, slots=True)
class Found:
    """The highest rate that met the bound, the lowest that did not; None where there is none.

    `untold` is a rate of which it could not be told, twice; it ended the search.
    """

    met: float | None
    missed: float | None
    untold: float | None = None


def highest_rate(
    meets: Callable[[float], bool | None], start: float, precision: float, most: float
) -> Found:
    """Search from `start`, twofold up or down, then between, until `precision` tells them apart.

    `meets` says of a rate whether it meets the bound; None: it could not be told, and the rate is
    tried once more. With `precision` 0.05 the lowest missed rate is within 5% of the highest met.
    No rate over `most` is tried.
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
