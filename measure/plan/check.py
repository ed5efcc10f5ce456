"""Validate predictions against held-out loads."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from measure.plan.fit import Predicted, replay
from measure.plan.observed import Calibration, Observation
from measure.plan.simulation import Costs

# Largest tolerated error of the p99, as a share; beyond it, nothing is planned.
MOST_ERROR = 0.20
# Simulations of each load: enough that the random draws hardly matter.
_REPLAYS = 3


@dataclass(frozen=True, slots=True)
class Checked:
    """A held-out load and its prediction."""

    DERIVED: ClassVar = ("p99_error", "verdict")

    load: Observation
    predicted: Predicted

    @property
    def rate_per_s(self) -> float:
        """Requested rate, in requests per second."""
        return self.load.rate_per_s or 0.0

    @property
    def p99_error(self) -> float | None:
        """Error of the predicted p99, as a share of the measured one; None if that is missing."""
        return None if self.load.p99_ns is None else self.predicted.p99_ns / self.load.p99_ns - 1

    @property
    def holds(self) -> bool:
        """Whether the prediction is within the tolerated error."""
        near = self.p99_error is not None and abs(self.p99_error) <= MOST_ERROR
        return near and not self.load.errors

    @property
    def verdict(self) -> str:
        """Whether it holds, with the reason if not."""
        if self.load.errors:
            return f"{self.load.errors:,} requests failed"
        if self.p99_error is None:
            return f"no p99 of {self.load.samples:,} samples"
        if self.holds:
            return "holds"
        why = "; ".join(self.load.doubts) or "the point itself is valid"
        return f"off by more than {MOST_ERROR:.0%} ({why})"


@dataclass(frozen=True, slots=True)
class Range:
    """The highest rate per replica up to which predictions held, and the largest error below it.

    `margin`: the share by which the measured p99 exceeded the predicted one; 0 if it never did.
    """

    most_per_s: float
    margin: float


def check(calibration: Calibration, costs: Costs) -> list[Checked]:
    """Predict each held-out load, in order of rising rates."""
    loads = sorted(calibration.held_out, key=lambda load: load.rate_per_s or 0.0)
    limits = calibration.limits
    return [Checked(load, replay(limits, costs, load, replays=_REPLAYS)) for load in loads]


def trusted(checks: Sequence[Checked]) -> Range | None:
    """The range of trusted rates: up to the last load before a prediction fails."""
    held: list[Checked] = []
    for one in checks:
        if not one.holds:
            break
        held.append(one)
    if not held:
        return None
    under = max(1 / (1 + (one.p99_error or 0.0)) - 1 for one in held)
    return Range(held[-1].rate_per_s, max(under, 0.0))
