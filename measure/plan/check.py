"""Hold predictions against loads that they were not made from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from measure.plan.fit import Predicted, replay
from measure.plan.observed import Calibration, Observation
from measure.plan.simulation import Costs

# Of the p99; where a prediction is further off, nothing is planned.
MOST_ERROR = 0.20
# So often each is simulated, that what is drawn for it hardly matters.
_REPLAYS = 3


@dataclass(frozen=True, slots=True)
class Checked:
    """A load that was held out, and what was predicted of it."""

    DERIVED: ClassVar = ("p99_error", "verdict")

    load: Observation
    predicted: Predicted

    @property
    def rate_per_s(self) -> float:
        """Requests per second that were asked for."""
        return self.load.rate_per_s or 0.0

    @property
    def p99_error(self) -> float | None:
        """How far the predicted p99 is off, as a share of the measured one; None without one."""
        return None if self.load.p99_ns is None else self.predicted.p99_ns / self.load.p99_ns - 1

    @property
    def holds(self) -> bool:
        """Whether the prediction is near enough."""
        near = self.p99_error is not None and abs(self.p99_error) <= MOST_ERROR
        return near and not self.load.errors

    @property
    def verdict(self) -> str:
        """Why it holds, or not."""
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
    """Up to which rate of a replica predictions held, and the largest error below that.

    `margin`: by which share the measured p99 was over the predicted one, 0 if it never was.
    """

    most_per_s: float
    margin: float


def check(calibration: Calibration, costs: Costs) -> list[Checked]:
    """Predict each load that was held out, those of low rates first."""
    loads = sorted(calibration.held_out, key=lambda load: load.rate_per_s or 0.0)
    limits = calibration.limits
    return [Checked(load, replay(limits, costs, load, replays=_REPLAYS)) for load in loads]


def trusted(checks: Sequence[Checked]) -> Range | None:
    """The rates at which predictions can be trusted: from none up to the last before one fails."""
    held: list[Checked] = []
    for one in checks:
        if not one.holds:
            break
        held.append(one)
    if not held:
        return None
    under = max(1 / (1 + (one.p99_error or 0.0)) - 1 for one in held)
    return Range(held[-1].rate_per_s, max(under, 0.0))
