"""Calibrations of servers whose costs are known, because they were simulated."""

from dataclasses import replace
from functools import cache

from measure.plan.calibration import FITTED_SHARES, HELD_OUT_SHARES
from measure.plan.fit import replay
from measure.plan.observed import Calibration, Observation, Trace
from measure.plan.simulation import Costs
from server.batching.policy import Limits

MS = 1_000_000
LIMITS = Limits.of(16, 1024, 0)
# Much like two cores that are shared: 3 ms an execution, 2.5 ms elsewhere.
COSTS = Costs(1.5 * MS, 1.0 * MS, 2.8 * MS, 0.2 * MS, 0.2 * MS, 0.6, 0.4, 0.1, 0.1)
CAPACITY_PER_S = 350.0
REQUESTS = 3000


def alone(rows, costs=COSTS):
    compute_ns = costs.execute_ns(rows, 1)
    mean_ns = costs.receive_ns + costs.answer_ns + compute_ns
    return Observation(
        rows=rows,
        concurrency=1,
        rate_per_s=None,
        requests_per_s=1e9 / mean_ns,
        samples=500,
        errors=0,
        mean_ns=mean_ns,
        p50_ns=round(mean_ns),
        p90_ns=round(mean_ns * 1.1),
        p99_ns=round(mean_ns * 1.2),
        queue_ns=0.0,
        assemble_ns=0.0,
        compute_ns=compute_ns,
        batch_rows=float(rows),
        doubts=(),
    )


@cache
def loaded(rate_per_s, costs=COSTS, seed=11):
    """An open loop, as simulated with other times than the fit draws."""
    asked = replace(
        alone(1, costs),
        concurrency=None,
        rate_per_s=rate_per_s,
        requests_per_s=rate_per_s,
        samples=REQUESTS,
        traces=(Trace(seed, 1000 * MS, round(REQUESTS / rate_per_s * 1e9)),),
    )
    found = replay(LIMITS, costs, asked, seed=seed)
    return replace(
        asked,
        p50_ns=round(found.p50_ns),
        p90_ns=round(found.p90_ns),
        p99_ns=round(found.p99_ns),
        assemble_ns=costs.gather_ns * found.batch_rows,
        compute_ns=costs.execute_ns(0, 1) + costs.row_ns * found.batch_rows,
        batch_rows=found.batch_rows,
    )


def calibration(costs=COSTS, **changes):
    made = Calibration(
        model="linear_argmax",
        rows=1,
        row_bytes=2**20,
        dtype="float32",
        limits=LIMITS,
        sizes=tuple(alone(rows, costs) for rows in (1, 2, 4, 8, 16)),
        busy=replace(alone(1, costs), concurrency=16, requests_per_s=CAPACITY_PER_S),
        fitted=tuple(loaded(share * CAPACITY_PER_S, costs) for share in FITTED_SHARES),
        held_out=tuple(loaded(share * CAPACITY_PER_S, costs, 12) for share in HELD_OUT_SHARES),
    )
    return replace(made, **changes)
