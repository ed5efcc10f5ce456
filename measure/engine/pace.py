"""How fast a process sends: requests in flight, a rate, a ramp of either, or a schedule."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import repeat

from measure.engine import ramp
from measure.engine.arrivals import Arrivals, due_times_ns, ramp_due_times_ns
from measure.engine.ramp import Stage


@dataclass(frozen=True, slots=True)
class Pace:
    """A number of requests in flight, or a rate per second; `among` gives a process's part.

    With `stages` either one is that before the first of them, which begins after the warm-up. With
    a schedule the rate is the mean.
    """

    concurrency: int | None = None
    rate_per_s: float | None = None
    arrivals: Arrivals = "constant"
    seed: int = 0
    part: int = 0
    parts: int = 1
    stages: tuple[Stage, ...] = ()

    @property
    def most(self) -> int | None:
        """The most requests in flight of a closed loop; None for an open one."""
        if self.concurrency is None:
            return None
        return max(self.concurrency, *(int(stage.first) for stage in self.stages), 0)

    def among(self, parts: int) -> list["Pace"]:
        """Divide it among so many processes."""
        return [self._part(part, parts) for part in range(parts)]

    def _part(self, part: int, parts: int) -> "Pace":
        pace = replace(self, part=part, parts=parts)
        if self.concurrency is None:
            return pace

        def share(level: float) -> int:
            whole, rest = divmod(int(level), parts)
            return whole + (part < rest)

        stages = tuple(
            Stage(share(stage.first), share(stage.last), stage.seconds) for stage in self.stages
        )
        return replace(pace, concurrency=share(self.concurrency), stages=stages)

    def due_ns(self, warm_up_s: float, at_ns: Sequence[int] | None) -> Iterator[int]:
        """When requests of an open loop are due, in nanoseconds since the start.

        `at_ns` is the schedule, if there is one.
        """
        if at_ns is not None:
            return iter(at_ns)
        assert self.rate_per_s is not None
        if self.stages:
            stages = (Stage(self.rate_per_s, self.rate_per_s, warm_up_s), *self.stages)
            return ramp_due_times_ns(self.arrivals, stages, self.seed, self.part, self.parts)
        return due_times_ns(self.arrivals, self.rate_per_s, self.seed, self.part, self.parts)

    def slots_ns(self, start_ns: int, warm_up_s: float) -> tuple[Iterator[int], deque[int]]:
        """When slots of a closed loop begin, and from when on one of them is to end."""
        concurrency = self.concurrency or 0
        if not self.stages:
            return repeat(start_ns, concurrency), deque()
        begin, end = ramp.slots(
            (Stage(concurrency, concurrency, warm_up_s), *self.stages), start_ns
        )
        return iter(begin), end
