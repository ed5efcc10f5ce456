"""Fit a server's costs per request to a calibration."""

import bisect
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from client.errors import UsageError
from measure.core import latency_fit
from measure.core.latency_fit import Fit
from measure.engine.arrivals import due_times_ns
from measure.plan.observed import Calibration, Observation
from measure.plan.simulation import Costs, simulate
from server.batching.policy import Limits

# Requests of a simulation without a measured counterpart.
REQUESTS = 8_000
# Requests of each pass of a load that each simulation of the fit runs.
TRIED_REQUESTS = 1_200
# A seed that no measurement uses.
SEED = 1_000_003
# Share of requests before the queue reaches its average length.
_WARM_UP_SHARE = 0.05
_Z90 = 1.2815515655446004  # the normal distribution's 90th percentile
# Most simulations of a search, and the distance of its points at which it ends.
_TRIES, _NEAR = 120, 0.005
# A single percentile that is far off must not outweigh all others.
_MOST_ERROR = 1.0


@dataclass(frozen=True, slots=True)
class Predicted:
    """Results of a simulated load: nanoseconds, and mean rows of a request's batch."""

    p50_ns: float
    p90_ns: float
    p99_ns: float
    batch_rows: float


@dataclass(frozen=True, slots=True)
class Shares:
    """Parameters of a server that loads reveal and single requests do not.

    `waiting`: the share of a request's time outside execution that blocks other requests; `loaded`:
    that time under load, relative to single requests. `receive_speed` and `execute_speed`: the
    remaining speed of each while both run. `spread`: how much the sigma of the part that does not
    block others exceeds that of single requests. Waiting for a core delays a request like that,
    without more core time for receiving and executing.
    """

    waiting: float
    loaded: float
    receive_speed: float
    execute_speed: float
    spread: float


# Bounds of the search.
_LEAST = Shares(0.05, 1.0, 0.05, 0.05, 0.0)
_MOST = Shares(1.0, 3.0, 1.0, 1.0, 1.5)
# Starting points; the search refines the best: cores shared, and not shared.
_STARTS = tuple(
    Shares(0.5, loaded, receive_speed, execute_speed, spread)
    for loaded in (1.0, 2.0)
    for receive_speed, execute_speed in ((0.8, 0.4), (1.0, 1.0))
    for spread in (0.1, 0.4)
)
_SEARCHES = 2


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
    return _predicted(seen.latencies_ns[int(_WARM_UP_SHARE * requests) :], seen.batch_rows)


def replay(
    limits: Limits,
    costs: Costs,
    load: Observation,
    *,
    replays: int = 1,
    requests: int | None = None,
    seed: int = SEED,
) -> Predicted:
    """Simulate a measured load, with requests due at the same instants.

    Both then have the same random arrivals, and only the server's behaviour is compared.
    `requests`: how many of each pass, from its start; None for all.
    """
    assert load.rate_per_s is not None
    latencies_ns: list[float] = []
    batch_rows: list[int] = []
    for trace, number in itertools.product(load.traces, range(replays)):
        end_ns = trace.warm_up_ns + trace.elapsed_ns
        arrivals = due_times_ns("poisson", load.rate_per_s, trace.seed)
        due_ns = list(itertools.islice(itertools.takewhile(end_ns.__gt__, arrivals), requests))
        seen = simulate(limits, costs, load.rows, due_ns, seed + number)
        latencies_ns += seen.latencies_ns[bisect.bisect(due_ns, trace.warm_up_ns) :]
        batch_rows += seen.batch_rows
    return _predicted(latencies_ns, batch_rows)


def _predicted(latencies_ns: Sequence[float], batch_rows: Sequence[int]) -> Predicted:
    p50, p90, p99 = np.percentile(latencies_ns, (50, 90, 99), method="inverted_cdf")
    batches = np.array(batch_rows, float)
    # Weighted by requests: a large batch counts once for each of its requests.
    return Predicted(float(p50), float(p90), float(p99), float(batches @ batches / batches.sum()))


def executions(calibration: Calibration) -> Fit:
    """The line of execution time over rows, while nothing else runs."""
    sizes = calibration.sizes
    rows, times_ns = [o.rows for o in sizes], [o.compute_ns for o in sizes]
    if len(sizes) < latency_fit.FEWEST_SIZES:  # the server runs no more rows at once
        return latency_fit.through(rows, times_ns)
    return latency_fit.fit(rows, times_ns)


def fit_costs(calibration: Calibration, requests: int = TRIED_REQUESTS) -> Costs:
    """Find the costs with which the simulation fits the loads best.

    Execution time, and the time that a single request spends elsewhere, are measured; the search
    varies `Shares`. Each simulation runs so many `requests` of a pass. UsageError if there is
    nothing to fit.
    """
    line = executions(calibration)
    alone = next((o for o in calibration.sizes if o.rows == calibration.rows), None)
    loads = [load for load in calibration.fitted if not load.errors]
    if alone is None or not loads:
        raise UsageError(f"the calibration has no load of {calibration.rows} rows to fit")
    elsewhere_ns = max(alone.mean_ns - alone.compute_ns, 1.0)
    gather_ns = _gather_ns(loads, line)
    lone_spread = _spread(alone)

    def costs(shares: Shares) -> Costs:
        return Costs(
            receive_ns=elsewhere_ns * shares.loaded * shares.waiting,
            answer_ns=elsewhere_ns * shares.loaded * (1 - shares.waiting),
            batch_ns=line.alpha_ns,
            row_ns=line.beta_ns,
            gather_ns=gather_ns,
            receive_speed=shares.receive_speed,
            execute_speed=shares.execute_speed,
            spread=lone_spread,
            answer_spread=lone_spread + shares.spread,
        )

    def error(shares: Shares) -> float:
        tried = costs(shares)
        return sum(_error(calibration.limits, tried, load, requests) for load in loads)

    return costs(_search(error))


def _search(error: Callable[[Shares], float]) -> Shares:
    """Minimise the error over the shares by the method of Nelder and Mead.

    It needs no gradients, which a simulation of discrete requests lacks (Nelder, Mead: A
    simplex method for function minimization, Comput. J. 7(4), 1965).
    """
    bounds = list(zip(astuple(_LEAST), astuple(_MOST), strict=True))
    tries = {"maxfev": _TRIES, "xatol": _NEAR, "fatol": _NEAR}
    found = [
        optimize.minimize(
            lambda point: error(Shares(*map(float, point))),
            astuple(start),
            method="Nelder-Mead",
            bounds=bounds,
            options={**tries, "initial_simplex": _simplex(start)},
        )
        for start in sorted(_STARTS, key=error)[:_SEARCHES]
    ]
    return Shares(*map(float, min(found, key=lambda one: one.fun).x))


def _simplex(start: Shares) -> NDArray[np.float64]:
    """The start, and on each axis a point a quarter of the way to the farther bound."""
    points = np.tile(np.array(astuple(start)), (len(fields(Shares)) + 1, 1))
    for axis, (least, most) in enumerate(zip(astuple(_LEAST), astuple(_MOST), strict=True)):
        at = points[0, axis]
        points[axis + 1, axis] += ((most if most - at > at - least else least) - at) / 4
    return points


def _error(limits: Limits, costs: Costs, load: Observation, requests: int) -> float:
    """Sum of squared log errors of percentiles and batch sizes."""
    found = replay(limits, costs, load, requests=requests)
    pairs = (
        (found.p50_ns, load.p50_ns),
        (found.p90_ns, load.p90_ns),
        (found.p99_ns, load.p99_ns),
        (found.batch_rows, load.batch_rows),
    )
    off = [math.log(got / wanted) for got, wanted in pairs if wanted is not None]
    return sum(min(abs(one), _MOST_ERROR) ** 2 for one in off)


def _gather_ns(loads: Sequence[Observation], line: Fit) -> float:
    """Time to gather a row, from the load with the largest batches, where gathering is largest.

    Gathering is slowed down like execution, by a known factor.
    """
    load = max(loads, key=lambda o: o.batch_rows)
    slowed = max(load.compute_ns / line.latency_ns(load.batch_rows), 1.0)
    return load.assemble_ns / load.batch_rows / slowed


def _spread(alone: Observation) -> float:
    """Sigma of each of two times, whose sum single requests show."""
    if alone.p50_ns is None or alone.p90_ns is None:
        raise UsageError(f"{alone.samples} single requests are too few for percentiles")
    sigma = math.log(alone.p90_ns / alone.p50_ns) / _Z90
    parts_ns = math.hypot(alone.compute_ns, alone.mean_ns - alone.compute_ns)
    return sigma * alone.mean_ns / parts_ns
