"""Compare two things by the ratio of paired, interleaved measurements.

An A/A test measures how often such a comparison reports a difference when there is none.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import scipy
from numpy.typing import NDArray

LEVEL = 0.05
FEWEST_PAIRS = 10
_RESAMPLES = 10_000

Floats = NDArray[np.float64]
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
        """Whether the interval excludes 1; a difference is claimed only then."""
        return self.low > 1 or self.high < 1

    def __format__(self, spec: str) -> str:
        """The median with its interval, each number in the format `spec`."""
        return f"{self.median:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"


def ratio(
    a: Sequence[float], b: Sequence[float], seed: int = 0, confidence: float = 1 - LEVEL
) -> Ratio:
    """Ratio of a to b, whose i-th values were measured next to each other.

    Medians and the percentile bootstrap (95% by default) use log-ratios, so that a/b and b/a agree.
    ValueError for unequal lengths, no pairs, or values that are not positive.
    """
    if len(a) != len(b) or not a:
        raise ValueError(f"got {len(a)} and {len(b)} values, expected pairs")
    if min(*a, *b) <= 0:
        raise ValueError(f"got a value of {min(*a, *b)}, expected values over 0")
    logs = np.array([math.log(x / y) for x, y in zip(a, b, strict=True)])
    drawn = _medians(logs, np.random.default_rng(seed))
    return _ratio(float(np.median(logs)), drawn, confidence, len(logs))


def unpaired_ratio(
    a: Sequence[float], b: Sequence[float], seed: int = 0, confidence: float = 1 - LEVEL
) -> Ratio:
    """Ratio of the median of a to the median of b, measured without pairing.

    The interval is the percentile bootstrap's, with each side resampled independently; `pairs` is
    the smaller number of values. ValueError for no values, or values that are not positive.
    """
    if not a or not b or min(*a, *b) <= 0:
        raise ValueError(f"got {len(a)} and {len(b)} values, expected values over 0 of both")
    generator = np.random.default_rng(seed)
    above, below = (np.log(np.array(values, float)) for values in (a, b))
    drawn = _medians(above, generator) - _medians(below, generator)
    median = float(np.median(above) - np.median(below))
    return _ratio(median, drawn, confidence, min(len(a), len(b)))


def _medians(values: Floats, generator: np.random.Generator) -> Floats:
    """Medians of bootstrap resamples of `values`."""
    draws = generator.integers(0, len(values), (_RESAMPLES, len(values)))
    medians: Floats = np.median(values[draws], axis=1)
    return medians


def _ratio(log_median: float, drawn: Floats, confidence: float, pairs: int) -> Ratio:
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Ratio(math.exp(log_median), math.exp(float(low)), math.exp(float(high)), pairs)


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

    It assumes independent pairs and nothing else; pairs with equal values are dropped.
    """
    above = sum(x > y for x, y in zip(a, b, strict=True))
    below = sum(x < y for x, y in zip(a, b, strict=True))
    if above + below == 0:
        return 1.0
    # The import takes a second, so it is deferred to the first use.
    return float(scipy.stats.binomtest(above, above + below).pvalue)


def fewest_pairs(comparisons: int, level: float) -> int:
    """Pairs below which the sign test cannot pass even if all agree.

    The comparisons share `level` (Bonferroni), so that it bounds the chance of any error.
    """
    return math.ceil(1 + math.log2(comparisons / level))


def fewest_to_claim(comparisons: int, level: float = LEVEL) -> int:
    """Pairs below which `compare` can claim no difference, `comparisons` sharing the level.

    With this many pairs that all agree, the sign test passes, and no bootstrap draw of ratios on
    one side of 1 falls on the other.
    """
    return max(fewest_pairs(max(comparisons, 1), level), FEWEST_PAIRS)


def interleaved(runs: Sequence[Callable[[], Value]], rounds: int) -> list[list[Value]]:
    """Values of each run, one per round; every other round runs in reverse order (ABBA).

    A drift of the machine then favours no run.
    """
    values: list[list[Value]] = [[] for _ in runs]
    for number in range(rounds):
        order = range(len(runs)) if number % 2 == 0 else reversed(range(len(runs)))
        for index in order:
            values[index].append(runs[index]())
    return values


# A comparison that errs in one run of twenty almost always reaches this share.
FEWEST_SHARE = 0.9

COMPARE_SCHEMA, LOAD_SCHEMA = "argmax-serving/compare-aa/1", "argmax-serving/load-aa/1"


@dataclass(frozen=True, slots=True)
class Calibration:
    """For each run, whether it claimed a difference although there was none.

    None: it had too few pairs to claim any, so it could not have failed.
    """

    claimed: tuple[bool | None, ...]

    @property
    def passed(self) -> bool:
        """Whether nine of ten runs reported no difference, among those that could fail."""
        could = [claim for claim in self.claimed if claim is not None]
        return bool(could) and could.count(False) >= FEWEST_SHARE * len(could)

    @property
    def text(self) -> str:
        """The result in one sentence."""
        runs, powerless = len(self.claimed), self.claimed.count(None)
        if powerless == runs:
            return f"A/A: none of {runs} runs could have failed: too few pairs without an error"
        text = f"A/A: no difference in {self.claimed.count(False)} of {runs - powerless} runs"
        if powerless:
            text += f"; {powerless} more could not have failed: too few pairs without an error"
        return text


SAID = {True: "a difference", False: "no difference", None: "could not have failed"}


def calibrate(
    claims: Callable[[], bool | None],
    runs: int,
    report: Callable[[str], None],
    claimed: list[bool | None],
) -> None:
    """Compare `runs` times, and append to `claimed` what each comparison claims.

    `claims` compares once and returns whether it claims a difference; None if it had too few pairs
    to claim one.
    """
    for number in range(1, runs + 1):
        claimed.append(claims())
        report(f"A/A {number} of {runs}: {SAID[claimed[-1]]}")
