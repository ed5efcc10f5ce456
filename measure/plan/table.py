"""Show a plan and how well its predictions hold."""

import math
from collections.abc import Sequence

import numpy as np
from rich.text import Text

from command_line.table import Table
from measure.core.latency_fit import Fit
from measure.plan.capacity import Demand, Option, Plan
from measure.plan.check import MOST_ERROR, Checked, Range
from measure.plan.fleet import FleetCheck
from measure.plan.observed import Calibration
from measure.plan.simulation import Costs
from measure.presentation.columns import Column, in_terminal
from measure.presentation.format import flagged, milliseconds, significant
from server.batching.policy import Limits

_NARROWER = ("float32", "float16", "int8")
_ELSEWHERE = "plan.json"


def _percentile(name: str, ranks: tuple[int, int]) -> tuple[Column[Checked], Column[Checked]]:
    """A percentile as it was measured, and as it is predicted."""
    key, over = f"{name}_ns", f"{name}, ms"
    return (
        Column(
            name,
            lambda one: milliseconds(getattr(one.load, key)),
            "measured",
            rank=ranks[0],
            over=over,
        ),
        Column(
            f"{name}\npredicted",
            lambda one: milliseconds(getattr(one.predicted, key)),
            "predicted",
            rank=ranks[1],
            over=over,
        ),
    )


CHECK_COLUMNS: tuple[Column[Checked], ...] = (
    Column("requests\nper s", lambda one: significant(one.rate_per_s), "requests/s"),
    *_percentile("p50", (2, 1)),
    *_percentile("p90", (4, 3)),
    *_percentile("p99", (0, 0)),
    Column("p99 off", lambda one: "-" if one.p99_error is None else f"{one.p99_error:+.0%}"),
    Column(
        "verdict",
        lambda one: flagged(one.verdict, bad=not one.holds),
        words=True,
        only="terminal",
    ),
    Column(
        "verdict",
        lambda one: flagged("holds" if one.holds else "does not hold", bad=not one.holds),
        only="page",
    ),
)
OPTION_COLUMNS: tuple[Column[Option], ...] = (
    Column("group\nrows", lambda one: str(one.limits.group_rows)),
    Column(
        "queue\ndelay us", lambda one: str(one.limits.queue_delay_ns // 1000), "queue delay, µs"
    ),
    Column("p50", lambda one: milliseconds(one.predicted.p50_ns), "p50, ms", rank=2),
    Column("p90", lambda one: milliseconds(one.predicted.p90_ns), "p90, ms", rank=3),
    Column("p99", lambda one: milliseconds(one.predicted.p99_ns), "p99, ms"),
    Column("batch\nrows", lambda one: significant(one.predicted.batch_rows), rank=1),
)


def costs_text(costs: Costs, line: Fit, calibration: Calibration) -> Text:
    """The server's costs as text."""
    return Text(
        f"an execution: {milliseconds(line.alpha_ns)} ms + {milliseconds(line.beta_ns)} ms a row "
        f"({error_text(line)}), + {milliseconds(costs.gather_ns)} a gathered row; "
        f"a request of {calibration.rows} rows: {milliseconds(costs.receive_ns)} ms that block "
        f"other requests, {milliseconds(costs.answer_ns)} ms that do not. While both run, "
        f"receiving has {costs.receive_speed:.0%} of its speed, executing "
        f"{costs.execute_speed:.0%}"
    )


def error_text(line: Fit) -> str:
    """Error of the line of execution times."""
    if math.isnan(line.worst_error):
        return "too few batch sizes for an error"
    return f"worst error {line.worst_error:.0%}"


def checks_table(checks: Sequence[Checked]) -> Table:
    """Measured and predicted latencies of the held-out loads."""
    return in_terminal(
        CHECK_COLUMNS,
        [checks],
        caption="held-out loads, which the costs were not fitted to; open loop, latency in ms",
        elsewhere=_ELSEWHERE,
    )


def refusal(checks: Sequence[Checked]) -> str:
    """The reason that nothing is planned."""
    lowest = checks[0]
    return (
        f"no plan: at {lowest.rate_per_s:.3g} requests/s, the lowest load that was held out, the "
        f"prediction does not hold: {lowest.verdict}, expected a p99 within {MOST_ERROR:.0%}"
    )


def unreachable(demand: Demand, calibration: Calibration, trust: Range) -> str:
    """The reason that no number of replicas suffices."""
    alone = min(calibration.sizes, key=lambda o: abs(o.rows - calibration.rows))
    return (
        f"no plan: no rate of a replica has a p99 within {demand.p99_ns / 1e6:g} ms, with a margin "
        f"of {trust.margin:.0%} for the error seen; a lone request takes "
        f"{milliseconds(alone.mean_ns)} ms in the mean"
    )


def answer(demand: Demand, plan: Plan) -> str:
    """The plan in a sentence."""
    return (
        f"{demand.rate_per_s:,.10g} requests/s with a p99 within {demand.p99_ns / 1e6:g} ms: "
        f"{plan.replicas:,} replicas with {plan.rate_per_s:.3g} requests/s each, "
        f"{options_text(plan.chosen.limits)}; predicted p99 "
        f"{milliseconds(plan.chosen.predicted.p99_ns)} ms, {milliseconds(plan.p99_ns)} ms with the "
        f"error seen; what binds: {plan.binds}"
    )


def fleet_text(fleet: FleetCheck) -> str:
    """What several servers together showed, in a sentence."""
    return (
        f"{fleet.servers} servers together at {fleet.rate_per_s:.3g} requests/s: p99 "
        f"{milliseconds(fleet.point.latency_ns.p99)} ms, predicted at most "
        f"{milliseconds(fleet.predicted_p99_ns)} ms: {fleet.verdict}"
    )


def options_text(limits: Limits) -> str:
    """Options of the server that batches by these limits."""
    return f"--group-rows {limits.group_rows} --queue-delay-us {limits.queue_delay_ns // 1000}"


def options_table(plan: Plan, measured: Calibration) -> Table:
    """Table of alternative batching options at the same rate."""
    return in_terminal(
        OPTION_COLUMNS,
        [ways(plan)],
        row_style=lambda option: "bold" if option is plan.chosen else "",
        keys=2,
        caption=f"ways to batch at {plan.rate_per_s:.3g} requests/s of a replica, latency in ms; "
        f"only {options_text(measured.limits)} was measured",
        elsewhere=_ELSEWHERE,
    )


def ways(plan: Plan) -> list[Option]:
    """All batching options, including the chosen one: large groups first, then short delays."""
    return sorted(
        (plan.chosen, *plan.options),
        key=lambda option: (-option.limits.group_rows, option.limits.queue_delay_ns),
    )


def network_table(demand: Demand, plan: Plan, calibration: Calibration) -> Table:
    """Table of incoming traffic, in total and per replica, for each wire dtype."""
    return in_terminal(
        network_columns(demand, plan, calibration),
        [dtypes(calibration)],
        caption=f"network, incoming; links of {demand.link_bits_per_s / 1e9:g} Gbit/s",
    )


def network_columns(
    demand: Demand, plan: Plan, calibration: Calibration
) -> tuple[Column[str], ...]:
    """Columns of what comes in over the network, of each dtype that a row can be sent as."""
    itemsize = np.dtype(calibration.dtype).itemsize

    def request_bytes(name: str) -> int:
        return calibration.rows * calibration.row_bytes * np.dtype(name).itemsize // itemsize

    def whole(name: str) -> float:
        return demand.rate_per_s * request_bytes(name)

    return (
        Column("as", lambda name: name),
        Column("a request", lambda name: binary(request_bytes(name))),
        Column("in all", lambda name: f"{binary(whole(name))}/s"),
        Column("each replica", lambda name: f"{8 * whole(name) / plan.replicas / 1e9:.3g} Gbit/s"),
        Column("links", lambda name: f"{8 * whole(name) / demand.link_bits_per_s:,.1f}"),
    )


def dtypes(calibration: Calibration) -> list[str]:
    """Dtypes that a row can be sent as: the model's, then those that take fewer bytes."""
    itemsize = np.dtype(calibration.dtype).itemsize
    narrower = [name for name in _NARROWER if np.dtype(name).itemsize < itemsize]
    return [calibration.dtype, *narrower]


def binary(count: float) -> str:
    """Bytes in binary units, with three significant digits."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:,.3g} TiB"
