"""Show a plan and how well its predictions hold."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from rich.text import Text

from command_line.table import Column, Table
from measure.core.latency_fit import Fit
from measure.plan.capacity import Demand, Option, Plan
from measure.plan.check import MOST_ERROR, Checked, Range
from measure.plan.observed import Calibration
from measure.plan.simulation import Costs
from measure.presentation.format import milliseconds, significant

NETWORK_COLUMNS = ("as", "a request", "in all", "each replica", "links")
_NARROWER = ("float32", "float16", "int8")
_ELSEWHERE = "plan.json"
_CHECKS = (
    Column("requests\nper s"),
    Column("p50", rank=2),
    Column("p50\npredicted", rank=1),
    Column("p90", rank=4),
    Column("p90\npredicted", rank=3),
    Column("p99"),
    Column("p99\npredicted"),
    Column("p99 off"),
    Column("verdict", words=True),
)
_OPTIONS = (
    Column("group\nrows"),
    Column("queue\ndelay us"),
    Column("p50", rank=2),
    Column("p90", rank=3),
    Column("p99"),
    Column("batch\nrows", rank=1),
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
    styles = ["" if one.holds else "bold red" for one in checks]
    return Table(
        _CHECKS,
        [
            [
                (*check_cells(one), Text(one.verdict, style=style))
                for one, style in zip(checks, styles, strict=True)
            ]
        ],
        caption="held-out loads, which the costs were not fitted to; open loop, latency in ms",
        elsewhere=_ELSEWHERE,
    )


def check_cells(one: Checked) -> list[str]:
    """Rate; p50, p90 and p99 in milliseconds, each measured and predicted; error of the p99."""
    load, predicted = one.load, one.predicted
    times_ns = (
        load.p50_ns,
        predicted.p50_ns,
        load.p90_ns,
        predicted.p90_ns,
        load.p99_ns,
        predicted.p99_ns,
    )
    error = "-" if one.p99_error is None else f"{one.p99_error:+.0%}"
    return [significant(one.rate_per_s), *map(milliseconds, times_ns), error]


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
    limits = plan.chosen.limits
    return (
        f"{demand.rate_per_s:,.10g} requests/s with a p99 within {demand.p99_ns / 1e6:g} ms: "
        f"{plan.replicas:,} replicas with {plan.rate_per_s:.3g} requests/s each, --group-rows "
        f"{limits.group_rows} --queue-delay-us {limits.queue_delay_ns // 1000}; predicted p99 "
        f"{milliseconds(plan.chosen.predicted.p99_ns)} ms, {milliseconds(plan.p99_ns)} ms with the "
        f"error seen; what binds: {plan.binds}"
    )


def options_table(plan: Plan, measured: Calibration) -> Table:
    """Table of alternative batching options at the same rate."""
    styles = ["bold" if option is plan.chosen else "" for option in ways(plan)]
    return Table(
        _OPTIONS,
        [
            [
                [Text(cell, style=style) for cell in option_cells(option)]
                for option, style in zip(ways(plan), styles, strict=True)
            ]
        ],
        keys=2,
        caption=f"ways to batch at {plan.rate_per_s:.3g} requests/s of a replica, latency in ms; "
        f"only --group-rows {measured.limits.group_rows} --queue-delay-us "
        f"{measured.limits.queue_delay_ns // 1000} was measured",
        elsewhere=_ELSEWHERE,
    )


def ways(plan: Plan) -> list[Option]:
    """All batching options, including the chosen one: large groups first, then short delays."""
    return sorted((plan.chosen, *plan.options), key=_order)


def option_cells(option: Option) -> list[str]:
    """Group rows, queue delay in microseconds, p50, p90 and p99 in milliseconds, batch rows."""
    limits, found = option.limits, option.predicted
    return [
        str(limits.group_rows),
        str(limits.queue_delay_ns // 1000),
        *map(milliseconds, (found.p50_ns, found.p90_ns, found.p99_ns)),
        significant(found.batch_rows),
    ]


def network_table(demand: Demand, plan: Plan, calibration: Calibration) -> Table:
    """Table of incoming traffic, in total and per replica, for each wire dtype."""
    return Table(
        [Column(heading) for heading in NETWORK_COLUMNS],
        [list(network_cells(demand, plan, calibration))],
        caption=f"network, incoming; links of {demand.link_bits_per_s / 1e9:g} Gbit/s",
    )


def network_cells(demand: Demand, plan: Plan, calibration: Calibration) -> Iterator[list[str]]:
    """The cells of `NETWORK_COLUMNS` for each wire dtype."""
    itemsize = np.dtype(calibration.dtype).itemsize
    narrower = [name for name in _NARROWER if np.dtype(name).itemsize < itemsize]
    for name in (calibration.dtype, *narrower):
        request_bytes = (
            calibration.rows * calibration.row_bytes * np.dtype(name).itemsize // itemsize
        )
        whole = demand.rate_per_s * request_bytes
        yield [
            name,
            binary(request_bytes),
            f"{binary(whole)}/s",
            f"{8 * whole / plan.replicas / 1e9:.3g} Gbit/s",
            f"{8 * whole / demand.link_bits_per_s:,.1f}",
        ]


def _order(option: Option) -> tuple[int, int]:
    return -option.limits.group_rows, option.limits.queue_delay_ns


def binary(count: float) -> str:
    """Bytes in binary units, with three significant digits."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:,.3g} TiB"
