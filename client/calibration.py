"""Compare a thing with itself again and again, to see how often a difference is claimed."""

from collections.abc import Callable
from dataclasses import dataclass

# What a comparison that errs in one run of twenty keeps to nearly always.
FEWEST_SHARE = 0.9

COMPARE_SCHEMA, LOAD_SCHEMA = "argmax-serving/compare-aa/1", "argmax-serving/load-aa/1"


@dataclass(frozen=True, slots=True)
class Calibration:
    """For each run, whether it claimed a difference where there was none."""

    claimed: tuple[bool, ...]

    @property
    def passed(self) -> bool:
        """Whether at least nine of ten runs said that there is no difference."""
        return self.claimed.count(False) >= FEWEST_SHARE * len(self.claimed)

    @property
    def text(self) -> str:
        """What came, in one sentence."""
        runs = len(self.claimed)
        return f"A/A: no difference in {self.claimed.count(False)} of {runs} runs"


def calibrate(claims: Callable[[], bool], runs: int, report: Callable[[str], None]) -> Calibration:
    """Compare `runs` times; `claims` compares once, and says whether it claims a difference."""
    claimed: list[bool] = []
    for number in range(1, runs + 1):
        claimed.append(claims())
        said = "a difference" if claimed[-1] else "no difference"
        report(f"A/A {number} of {runs}: {said}")
    return Calibration(tuple(claimed))
