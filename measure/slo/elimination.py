"""Raise the rate for several candidates in parallel, until all of them miss the bound."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Race:
    """Highest rate that each candidate met, None if it met none; `ended`: the trials sufficed."""

    met: tuple[float | None, ...]
    ended: bool

    @property
    def best(self) -> tuple[int, ...]:
        """Candidates that met the highest rate; empty if no candidate met any."""
        highest = max((rate for rate in self.met if rate is not None), default=None)
        return tuple(i for i, rate in enumerate(self.met) if rate is not None and rate == highest)


def race(
    candidates: int,
    meets: Callable[[int, float], bool | None],
    start: float,
    factor: float,
    most: float,
    most_trials: int,
) -> Race:
    """Try all remaining candidates at one rate, then at `factor` times that, up to `most`.

    They take turns, in reverse order every other time. A candidate that misses, or is inconclusive,
    is tried once more after all others, and eliminated if it fails again. At most `most_trials`
    trials run; a rate is started only if it can be completed.
    """
    met: list[float | None] = [None] * candidates
    left, rate, trials, backwards = list(range(candidates)), start, 0, False
    while left and rate <= most:
        if trials + 2 * len(left) > most_trials:
            return Race(tuple(met), ended=False)
        order = left[::-1] if backwards else left
        through = [one for one in order if meets(one, rate)]
        again = [one for one in order if one not in through]
        trials += len(order) + len(again)
        left = sorted(through + [one for one in again if meets(one, rate)])
        for one in left:
            met[one] = rate
        rate, backwards = rate * factor, not backwards
    return Race(tuple(met), ended=True)
