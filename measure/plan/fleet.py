"""Hold a plan against several running servers, each at the rate that the plan gives a replica."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from measure.core.confidence import fewest_samples
from measure.load.runs import loading
from measure.load.settings import Report, Settings, Windows, open_loop
from measure.load.summary import LoadPoint
from measure.load.target import target
from measure.plan.capacity import Demand, Plan
from measure.plan.check import MOST_ERROR
from server.batching.policy import Limits

_WINDOWS = 3
_MOST_WARM_UP_S = 1.0
# More requests than a percentile needs, because fewer than average may arrive.
_CHANCE = 1.3
_SEED = 1_000_033
# Checks of a load without which its p99 says nothing.
_NEEDED = ("errors", "rate")


@dataclass(frozen=True, slots=True)
class FleetCheck:
    """A load of `servers` servers together, at `rate_per_s` requests per second in all.

    `predicted_p99_ns` is the simulation's for one replica at its share of that rate, with Poisson
    arrivals of its own. `bound_ns` is the p99 that was planned for; None if the plan has other
    batching options than these servers.
    """

    DERIVED: ClassVar = ("holds", "verdict")

    servers: int
    rate_per_s: float
    predicted_p99_ns: float
    bound_ns: float | None
    point: LoadPoint

    @property
    def holds(self) -> bool:
        """Whether so many servers carry the rate within the bound, about as predicted."""
        return not any(self._faults())

    @property
    def verdict(self) -> str:
        """Whether it holds, with the reasons if not."""
        return "; ".join(self._faults()) or "holds"

    def _faults(self) -> Iterator[str]:
        p99_ns = self.point.latency_ns.p99
        for check in self.point.checks:
            if check.name in _NEEDED and check.passed is False:
                yield f"{check.name}: {check.text}"
        if p99_ns is None:
            yield f"no p99 of {self.point.latency_ns.samples:,} samples"
            return
        if self.bound_ns is not None and p99_ns > self.bound_ns:
            yield f"p99 is over {self.bound_ns / 1e6:g} ms"
        # Only upwards: a client that picks the server with the fewest requests does better.
        if p99_ns > self.predicted_p99_ns * (1 + MOST_ERROR):
            yield f"p99 is over the predicted one by more than {MOST_ERROR:.0%}"


def check_fleet(
    settings: Settings,
    demand: Demand,
    plan: Plan,
    measured: Limits,
    seconds: float,
    report: Report,
) -> FleetCheck:
    """Load all servers of the settings, each with the rate of a planned replica.

    It lasts `seconds`, or longer for a p99. `measured`: the batching limits of these servers.
    """
    (running,) = [each for each in (plan.chosen, *plan.options) if each.limits == measured]
    with target(settings, report) as where:
        servers = len(where.replicas)
        rate_per_s = plan.rate_per_s * servers
        # Other arrivals than those that the costs were fitted to.
        apart = replace(settings, windows=_windows(seconds, rate_per_s), seed=_SEED)
        with loading(apart, where, "unary") as load:
            point = load.measure(open_loop(apart, "unary", rate_per_s), report)
    bound_ns = demand.p99_ns if running is plan.chosen else None
    return FleetCheck(servers, rate_per_s, running.predicted.p99_ns, bound_ns, point)


def _windows(seconds: float, rate_per_s: float) -> Windows:
    window_s = max(seconds, _CHANCE * fewest_samples(99) / rate_per_s) / _WINDOWS
    return Windows(min(window_s, _MOST_WARM_UP_S), window_s, requests=0, most=_WINDOWS)
