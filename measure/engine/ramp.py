"""Compute when requests are due, and slots begin and end, while the level of a load changes."""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of a ramp: the level goes evenly from `first` to `last` in `seconds`.

    In an open loop a level is a rate per second. In a closed loop it is a number of requests in
    flight, which is whole and does not change within a stage.
    """

    first: float
    last: float
    seconds: float

    @property
    def mean(self) -> float:
        """Mean level."""
        return (self.first + self.last) / 2

    @property
    def requests(self) -> float:
        """Number of requests that are due in the stage of an open loop."""
        return self.mean * self.seconds

    def reached_s(self, requests: float) -> float:
        """Seconds from the stage's start until so many requests are due."""
        slope = (self.last - self.first) / self.seconds
        # The usual formula would lose the digits of a small slope.
        return 2 * requests / (self.first + math.sqrt(self.first**2 + 2 * slope * requests))


def due_ns(requests: Iterable[float], stages: Sequence[Stage]) -> Iterator[int]:
    """Nanoseconds since the start at which the integral of the rate reaches each of `requests`.

    Requests that come at a mean rate of one per second are spread so that they come at the rates of
    the stages; the last of those goes on without end.
    """
    following = iter([*stages, Stage(stages[-1].last, stages[-1].last, float("inf"))])
    began_s, due, stage = 0.0, 0.0, next(following)
    for request in requests:
        while request - due >= stage.requests:
            began_s, due = began_s + stage.seconds, due + stage.requests
            stage = next(following)
        yield int((began_s + stage.reached_s(request - due)) * 1e9)


def slots(stages: Sequence[Stage], start_ns: int) -> tuple[list[int], deque[int]]:
    """Instants at which slots of a closed loop begin, and those from which one is to end."""
    begin = [start_ns] * int(stages[0].first)
    end: deque[int] = deque()
    at_ns = start_ns
    for stage, following in pairwise(stages):
        at_ns += int(stage.seconds * 1e9)
        change = int(following.first) - int(stage.first)
        (begin if change > 0 else end).extend([at_ns] * abs(change))
    return begin, end
