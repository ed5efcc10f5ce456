"""Find what a server spends on requests from what a calibration saw."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from client import latency_fit
from client.errors import UsageError
from client.latency_fit import Fit
from client.load.arrivals import due_times_ns
from client.plan.observed import Calibration, Observation
from client.plan.simulation import Costs, simulate
from scheduling.batching import Limits

# Of a simulation that is compared with what was measured, and of one that the fit tries.
REQUESTS, TRIED_REQUESTS = 8_000, 3_000
# Of arrivals that no measurement had.
SEED = 1_000_003
# Requests before the queue is as long as it is on average.
_WARM_UP_SHARE = 0.05
_Z90 = 1.2815515655446004  # the normal distribution's 90th percentile
_STEPS = (0.2, 0.1, 0.05)
_LEAST_SHARE = 0.05
# One percentile that is far off must not outweigh all others.
_MOST_ERROR = 1.0
_START = (0.6, 0.7, 0.6)


@dataclass(frozen=True, slots=True)
class Predicted:
    """What a simulated load gave: nanoseconds, and the rows of the batch of a mean request."""

    p50_ns: float
    p90_ns: float
    p99_ns: float
    batch_rows: float


def predict(
    limits: Limits,
    costs: Costs,
    rows: int,
    rate_per_s: float,
    requests: int = REQUESTS,
    seed: int = SEED,
) -> Predicted:
    """Simulate an open loop of Poisson arrivals."""
    due_ns = itertools.islice(due_times_ns("poisson", rate_per_s, seed), requests)
    seen = simulate(limits, costs, rows, due_ns, seed)
    kept = seen.latencies_ns[int(_WARM_UP_SHARE * requests) :]
    p50, p90, p99 = np.percentile(kept, (50, 90, 99), method="inverted_cdf")
    batches = np.array(seen.batch_rows, float)
    # As a request sees it: a batch of many is seen by many.
    return Predicted(float(p50), float(p90), float(p99), float(batches @ batches / batches.sum()))


def executions(calibration: Calibration) -> Fit:
    """The line of what executions take over their rows, while nothing else goes on."""
    sizes = calibration.sizes
    if len(sizes) == 1:  # the server takes no more rows at once
        return Fit(sizes[0].compute_ns, 0.0, 0.0, 0.0)
    return latency_fit.fit([o.rows for o in sizes], [o.compute_ns for o in sizes])


def fit_costs(calibration: Calibration, requests: int = TRIED_REQUESTS) -> Costs:
    """Costs with which the simulation comes nearest to the fitted loads.

    Executions and the time that a lone request spends elsewhere are measured. How much of the
    latter keeps other requests waiting, and how receiving and executing slow each other down, is
    what the search varies. Each simulation takes so many `requests`. UsageError when there is
    nothing to fit.
    """
    line = executions(calibration)
    alone = next((o for o in calibration.sizes if o.rows == calibration.rows), None)
    loads = [load for load in calibration.fitted if not load.errors]
    if alone is None or not loads:
        raise UsageError(f"the calibration has no load of {calibration.rows} rows to fit")
    elsewhere_ns = max(alone.mean_ns - alone.compute_ns, 1.0)
    measured = Costs(
        receive_ns=elsewhere_ns,
        answer_ns=0.0,
        batch_ns=line.alpha_ns,
        row_ns=line.beta_ns,
        gather_ns=_gather_ns(loads, line),
        spread=_spread(alone),
    )

    def costs(shares: Sequence[float]) -> Costs:
        waiting, receive_speed, execute_speed = shares
        return replace(
            measured,
            receive_ns=elsewhere_ns * waiting,
            answer_ns=elsewhere_ns * (1 - waiting),
            receive_speed=receive_speed,
            execute_speed=execute_speed,
        )

    def error(shares: Sequence[float]) -> float:
        tried = costs(shares)
        return sum(_error(calibration, tried, load, requests) for load in loads)

    return costs(_search(error))


def _search(error: Callable[[Sequence[float]], float]) -> tuple[float, ...]:
    """Shares with the least error: along one axis after the other, with ever smaller steps."""
    known: dict[tuple[float, ...], float] = {}

    def cost(shares: tuple[float, ...]) -> float:
        if shares not in known:
            inside = all(_LEAST_SHARE <= share <= 1 for share in shares)
            known[shares] = error(shares) if inside else math.inf
        return known[shares]

    best: tuple[float, ...] = _START
    for step in _STEPS:
        improved = True
        while improved:
            before = best
            for axis, sign in itertools.product(range(len(best)), (1, -1)):
                moved = list(best)
                moved[axis] = round(moved[axis] + sign * step, 6)
                best = min(best, tuple(moved), key=cost)
            improved = best != before
    return best


def _error(calibration: Calibration, costs: Costs, load: Observation, requests: int) -> float:
    """Squares of the logarithms by which percentiles and batches are off."""
    assert load.rate_per_s is not None
    rows, limits = calibration.rows, calibration.limits
    found = predict(limits, costs, rows, load.rate_per_s, requests)
    pairs = (
        (found.p50_ns, load.p50_ns),
        (found.p90_ns, load.p90_ns),
        (found.p99_ns, load.p99_ns),
        (found.batch_rows, load.batch_rows),
    )
    off = [math.log(got / wanted) for got, wanted in pairs if wanted is not None]
    return sum(min(abs(one), _MOST_ERROR) ** 2 for one in off)


def _gather_ns(loads: Sequence[Observation], line: Fit) -> float:
    """What a row takes to be gathered: of the load with the largest batches, where it is most.

    Gathering is slowed down as executing is, which is known.
    """
    load = max(loads, key=lambda o: o.batch_rows)
    slowed = max(load.compute_ns / line.latency_ns(load.batch_rows), 1.0)
    return load.assemble_ns / load.batch_rows / slowed


def _spread(alone: Observation) -> float:
    """Sigma of each of two times, of which lone requests show the sum."""
    if alone.p50_ns is None or alone.p90_ns is None:
        raise UsageError(f"{alone.samples} lone requests are too few to tell percentiles")
    sigma = math.log(alone.p90_ns / alone.p50_ns) / _Z90
    parts_ns = math.hypot(alone.compute_ns, alone.mean_ns - alone.compute_ns)
    return sigma * alone.mean_ns / parts_ns
