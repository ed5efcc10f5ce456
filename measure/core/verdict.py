"""The shared vocabulary for judging results: findings, checks, goals.

A `Finding` is a caveat that a reader must see before the numbers. A `Check` answers one question
about a result. A `Goal` is a list of `Criterion`s: measured ratios, each with its threshold.

Three kinds of answers have their own terms: which is faster (`measure.compare`), better or worse
than an earlier result (`measure.diff`), and LoadGen's VALID and INVALID.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from measure.core.comparison import Ratio

Level = Literal["fail", "warn", "good"]
# Whether something holds; None: inconclusive.
Passed = bool | None


class Standing(StrEnum):
    """Whether a measurement reaches its goal, as records spell it."""

    REACHED = "reached"
    MISSED = "missed"
    NOT_MEASURED = "not measured"
    UNDECIDED = "cannot tell"


@dataclass(frozen=True, slots=True)
class Finding:
    """A caveat that a reader must see before the numbers: a failure, or a weakness."""

    level: Level
    text: str


@dataclass(frozen=True, slots=True)
class Check:
    """Whether a result is valid in one named respect; `text` gives the observation."""

    name: str
    passed: Passed
    text: str


def word(passed: Passed, untold: str = "inconclusive") -> str:
    """The outcome of a check in a word, in capitals if it failed."""
    return {True: "passed", False: "FAILED", None: untold}[passed]


@dataclass(frozen=True, slots=True)
class Criterion:
    """A measured ratio and its bound: at least, or at most, `threshold`."""

    what: str
    ratio: Ratio
    threshold: float
    at_most: bool = False

    @property
    def reached(self) -> bool:
        """Whether the median is on the right side of the threshold."""
        if self.at_most:
            return self.ratio.median <= self.threshold
        return self.ratio.median >= self.threshold

    @property
    def certain(self) -> bool:
        """Whether the whole interval is on the same side as the median."""
        return not self.ratio.low < self.threshold < self.ratio.high


@dataclass(frozen=True, slots=True)
class Goal:
    """A goal with its measured criteria and the missing ones; `notes` are printed beside it."""

    name: str
    text: str
    parts: tuple[Criterion, ...]
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> Standing:
        """Reached, missed, or not measured; missed if any criterion is."""
        if any(not part.reached for part in self.parts):
            return Standing.MISSED
        return Standing.REACHED if self.parts else Standing.NOT_MEASURED


def lines(goal: Goal) -> Iterator[str]:
    """The goal as text: the verdict first, then a line for each criterion."""
    yield f"{goal.name}  {goal.verdict:<12}  {goal.text}"
    for part in goal.parts:
        sign = "<=" if part.at_most else ">="
        doubt = "" if part.certain else ", too close to be sure"
        missed = "" if part.reached else "  MISSED"
        shown = f"{part.ratio:.3g} of {part.ratio.pairs} pairs"
        yield f"      {part.what}: {shown}, required {sign} {part.threshold:g}{doubt}{missed}"
    for note in goal.notes:
        yield f"      {note}"
    if goal.missing:
        yield f"      not measured: {'; '.join(goal.missing)}"
