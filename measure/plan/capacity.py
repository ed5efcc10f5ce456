"""Find the fewest replicas, and their batching options, that meet a p99 at a rate."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from measure.engine.bisection import highest_rate
from measure.plan.check import Range
from measure.plan.fit import REQUESTS, Predicted, predict
from measure.plan.observed import Calibration
from measure.plan.simulation import Costs
from server.batching.policy import Limits

_QUEUE_DELAYS_NS = (0, 1_000_000, 5_000_000)
# Divisors of the measured group size to try, besides groups of one row.
_SMALLER = (1, 4)
_PRECISION = 0.02
# Share of the highest trusted rate; options that miss the bound even there are dropped.
_LEAST_SHARE = 1 / 64
# Batching options that were not measured must reach this many times the rate to be chosen.
_WORTH = 1.05


@dataclass(frozen=True, slots=True)
class Demand:
    """Requests per second of all replicas together, with a bound on the p99.

    `link_bits_per_s` is the network bandwidth of one replica.
    """

    rate_per_s: float
    p99_ns: float
    link_bits_per_s: float


@dataclass(frozen=True, slots=True)
class Option:
    """A set of batching options, with its predicted results at one replica's rate."""

    limits: Limits
    predicted: Predicted


@dataclass(frozen=True, slots=True)
class Plan:
    """A number of replicas, each with its share of the rate.

    `p99_ns` is the prediction with the margin. `binds` names the constraint that determines the
    number of replicas. `options` are alternative batching options at the same rate.
    """

    replicas: int
    rate_per_s: float
    chosen: Option
    p99_ns: float
    binds: str
    options: tuple[Option, ...]


def plan(
    demand: Demand, calibration: Calibration, costs: Costs, trust: Range, requests: int = REQUESTS
) -> Plan | None:
    """The fewest replicas that meet a demand at trusted rates; None if no number does.

    `requests`: the number that each simulation runs.
    """
    bound_ns = demand.p99_ns / (1 + trust.margin)
    link_per_s = demand.link_bits_per_s / (8 * calibration.rows * calibration.row_bytes)
    most_per_s = min(trust.most_per_s, demand.rate_per_s, link_per_s)

    def found(limits: Limits, rate_per_s: float) -> Predicted:
        return predict(limits, costs, calibration.rows, rate_per_s, requests)

    def meets(limits: Limits, rate_per_s: float) -> bool:
        return found(limits, rate_per_s).p99_ns <= bound_ns

    def best(limits: Limits) -> float:
        """Highest rate that meets the bound; 0 if none does."""
        if not meets(limits, most_per_s * _LEAST_SHARE):
            return 0.0
        met = highest_rate(lambda r: meets(limits, r), most_per_s, _PRECISION, most_per_s).met
        return met or 0.0

    chosen, rate_per_s = calibration.limits, best(calibration.limits)
    for limits in _others(calibration):
        worth_per_s = rate_per_s * _WORTH
        if worth_per_s > most_per_s or (rate_per_s and not meets(limits, worth_per_s)):
            continue
        carried_per_s = best(limits)
        if carried_per_s > rate_per_s:
            chosen, rate_per_s = limits, carried_per_s
    if not rate_per_s:
        return None
    replicas = math.ceil(demand.rate_per_s / rate_per_s)
    each_per_s = demand.rate_per_s / replicas
    predicted = found(chosen, each_per_s)
    if rate_per_s == link_per_s:
        binds = "the network"
    elif rate_per_s == trust.most_per_s:
        binds = "the highest rate at which the prediction was checked"
    elif replicas == 1:
        binds = "nothing: one replica is enough"
    else:
        binds = "the p99"
    others = [limits for limits in (calibration.limits, *_others(calibration)) if limits != chosen]
    options = tuple(Option(limits, found(limits, each_per_s)) for limits in others)
    return Plan(
        replicas,
        each_per_s,
        Option(chosen, predicted),
        predicted.p99_ns * (1 + trust.margin),
        binds,
        options,
    )


def _others(calibration: Calibration) -> Iterator[Limits]:
    """Alternative batching options, with groups no larger than the measured one."""
    measured = calibration.limits
    groups = {measured.group_rows // smaller for smaller in _SMALLER} - {0} | {1}
    for group_rows in sorted(groups, reverse=True):
        for delay_ns in _QUEUE_DELAYS_NS:
            limits = Limits.of(group_rows, measured.slice_rows, delay_ns)
            if limits != measured:
                yield limits
