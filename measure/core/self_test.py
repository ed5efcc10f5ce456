"""A/A tests: measure how often a difference is reported when there is none."""

from collections.abc import Callable
from dataclasses import dataclass

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
