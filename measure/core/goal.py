"""A goal, what was measured of it, and whether it is reached."""

from collections.abc import Iterable
from dataclasses import dataclass

from measure.core.comparison import Ratio

REACHED, MISSED, NOT_MEASURED = "reached", "missed", "not measured"


@dataclass(frozen=True, slots=True)
class Part:
    """A ratio and what it should be: at least `threshold`, or at most."""

    what: str
    ratio: Ratio
    threshold: float
    at_most: bool = False

    @property
    def reached(self) -> bool:
        """Whether the median is on the right side."""
        if self.at_most:
            return self.ratio.median <= self.threshold
        return self.ratio.median >= self.threshold

    @property
    def certain(self) -> bool:
        """Whether the whole interval is on the side where the median is."""
        return not self.ratio.low < self.threshold < self.ratio.high


@dataclass(frozen=True, slots=True)
class Goal:
    """A goal with what was measured of it, and what was not; `notes` are printed beside it."""

    name: str
    text: str
    parts: tuple[Part, ...]
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """reached, missed, or not measured; one part that misses is enough for missed."""
        if any(not part.reached for part in self.parts):
            return MISSED
        return REACHED if self.parts else NOT_MEASURED


def lines(goal: Goal) -> Iterable[str]:
    """The goal in words: the verdict first, then a line for each part."""
    yield f"{goal.name}  {goal.verdict:<12}  {goal.text}"
    for part in goal.parts:
        sign = "<=" if part.at_most else ">="
        doubt = "" if part.certain else ", too close to be sure"
        missed = "" if part.reached else "  MISSED"
        shown = interval(part.ratio)
        yield f"      {part.what}: {shown}, wanted {sign} {part.threshold:g}{doubt}{missed}"
    for note in goal.notes:
        yield f"      {note}"
    if goal.missing:
        yield f"      not measured: {'; '.join(goal.missing)}"


def interval(found: Ratio) -> str:
    """A ratio with its interval, in words."""
    return f"{found.median:.3g} [{found.low:.3g}, {found.high:.3g}] of {found.pairs} pairs"
