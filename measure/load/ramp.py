"""A load whose level changes while it runs: from one rate, or concurrency, to another."""

from dataclasses import dataclass

from client.errors import UsageError
from measure.engine.ramp import Stage
from measure.engine.windows import LoopKind

# Of a linear ramp; each is a point of the result.
INTERVALS = 20
# Shorter ones would measure little but their ends.
_LEAST_INTERVAL_S = 0.1


@dataclass(frozen=True, slots=True)
class Ramp:
    """From `first` to `last` in `seconds`: requests per second (open loop), or requests in flight.

    With `steps` it stays at each of so many levels, both ends included; None: it rises, or falls,
    evenly. A closed loop always has steps. Each step, or each of the equal parts of an even ramp,
    becomes a point.
    """

    loop: LoopKind
    first: float
    last: float
    seconds: float
    steps: int | None = None

    @property
    def text(self) -> str:
        """The ramp as the option takes it."""
        steps = "" if self.steps is None else f":{self.steps}"
        return f"{self.first:g}:{self.last:g}:{self.seconds:g}s{steps}"

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The parts of the ramp that become points."""
        if self.steps is not None:
            levels = [self._level(step / (self.steps - 1)) for step in range(self.steps)]
            return tuple(Stage(level, level, self.seconds / self.steps) for level in levels)
        ends = [self._level(number / INTERVALS) for number in range(INTERVALS + 1)]
        return tuple(
            Stage(ends[number], ends[number + 1], self.seconds / INTERVALS)
            for number in range(INTERVALS)
        )

    def _level(self, share: float) -> float:
        level = self.first + (self.last - self.first) * share
        return round(level) if self.loop == "closed" else level


def ramp_of(text: str, loop: LoopKind) -> Ramp:
    """The ramp that FROM:TO:SECONDS or FROM:TO:SECONDS:STEPS describes; UsageError otherwise."""
    expected = "expected FROM:TO:SECONDS or FROM:TO:SECONDS:STEPS, such as 100:2000:60s:10"
    parts = text.split(":")
    if not 3 <= len(parts) <= 4:
        raise UsageError(f"got {text!r}, {expected}")
    try:
        first, last = float(parts[0]), float(parts[1])
        seconds = float(parts[2].removesuffix("s"))
        steps = int(parts[3]) if len(parts) == 4 else None
    except ValueError:
        raise UsageError(f"got {text!r}, {expected}") from None
    if not all(0 < value < float("inf") for value in (first, last, seconds)):
        raise UsageError(f"got {text!r}, expected levels and seconds over 0")
    if first == last:
        raise UsageError(f"got {text!r}, expected two different levels")
    if loop == "closed":
        if first != int(first) or last != int(last):
            raise UsageError(f"got {text!r}, expected whole numbers of requests in flight")
        most = int(abs(last - first)) + 1
        steps = min(most, INTERVALS) if steps is None else steps
        if steps > most:
            raise UsageError(f"got {text!r} with {steps} steps, expected at most {most}")
    if steps is not None and steps < 2:
        raise UsageError(f"got {text!r} with {steps} steps, expected at least 2")
    if seconds / (steps or INTERVALS) < _LEAST_INTERVAL_S:
        raise UsageError(
            f"got {text!r}, whose {steps or INTERVALS} points are shorter than "
            f"{_LEAST_INTERVAL_S:g} s, expected more seconds or fewer steps"
        )
    return Ramp(loop, first, last, seconds, steps)
