"""How a result stands: the words that every instrument shares.

A `Finding` is what a reader must know before trusting numbers. A `Check` asks one question of a
result. A `Goal` says what was wanted, as `Criterion`s: measured ratios, each with its threshold.

Three answers are of another kind, and keep words of their own: who is faster (`measure.compare`),
better or worse than an earlier result (`measure.diff`), and LoadGen's VALID and INVALID.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from measure.core.comparison import Ratio

Level = Literal["fail", "warn", "good"]
# Whether something holds; None: it was asked, but cannot be told.
Passed = bool | None


class Standing(StrEnum):
    """How a measurement stands to what was wanted, in the words of the records."""

    REACHED = "reached"
    MISSED = "missed"
    NOT_MEASURED = "not measured"
    UNDECIDED = "cannot tell"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a reader must know before trusting the numbers: a failure, or what weakens them."""

    level: Level
    text: str


@dataclass(frozen=True, slots=True)
class Check:
    """Whether a result can be believed in one respect, by its name; `text` says what was seen."""

    name: str
    passed: Passed
    text: str


def word(passed: Passed, untold: str = "cannot be told") -> str:
    """The answer to a check in a word, loud where it failed."""
    return {True: "passed", False: "FAILED", None: untold}[passed]


@dataclass(frozen=True, slots=True)
class Criterion:
    """A measured ratio and what it should be: at least `threshold`, or at most."""

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
    parts: tuple[Criterion, ...]
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> Standing:
        """Reached, missed, or not measured; one criterion that misses is enough for missed."""
        if any(not part.reached for part in self.parts):
            return Standing.MISSED
        return Standing.REACHED if self.parts else Standing.NOT_MEASURED


def lines(goal: Goal) -> Iterator[str]:
    """The goal in words: how it stands first, then a line for each criterion."""
    yield f"{goal.name}  {goal.verdict:<12}  {goal.text}"
    for part in goal.parts:
        sign = "<=" if part.at_most else ">="
        doubt = "" if part.certain else ", too close to be sure"
        missed = "" if part.reached else "  MISSED"
        shown = f"{part.ratio:.3g} of {part.ratio.pairs} pairs"
        yield f"      {part.what}: {shown}, wanted {sign} {part.threshold:g}{doubt}{missed}"
    for note in goal.notes:
        yield f"      {note}"
    if goal.missing:
        yield f"      not measured: {'; '.join(goal.missing)}"
