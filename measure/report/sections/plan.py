"""Show how many servers a rate takes, and what that was concluded from."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from measure.core.record import read
from measure.core.verdict import Check
from measure.plan.capacity import Plan
from measure.plan.check import MOST_ERROR, Checked
from measure.plan.fit import executions
from measure.plan.observed import Calibration, Observation
from measure.plan.record import PlanRecord, Settings
from measure.plan.table import (
    NETWORK_COLUMNS,
    binary,
    check_cells,
    error_text,
    network_cells,
    option_cells,
    ways,
)
from measure.presentation.format import milliseconds, significant
from measure.presentation.looks import Look
from measure.report import trust
from measure.report.axes import Figure, band_of, layout_of, line_of, linear_axis
from measure.report.section import Card, Cell, Linked, Plot, Row, Section, Table, Verdict
from measure.report.values import place

_MEASURED = Look("#0072B2", "s", "square")
_PREDICTED = Look("#D55E00", "^", "triangle-up")
_CHECK_COLUMNS = (
    ("requests/s",),
    *[("measured", "predicted")] * 3,
    ("p99 off", "verdict"),
)
_OVER = ("", "p50, ms", "p90, ms", "p99, ms", "")


def section(record: Mapping[str, Any]) -> Section:
    """Return what a page shows of a plan's record. RecordError where it cannot be read."""
    told = read(record, PlanRecord)
    tables = [_checks_table(told.checks), _costs(told)]
    if told.plan is not None:
        tables += [_options(told.plan, told.calibration), _network(told, told.plan)]
    return Section(
        heading=f"Servers for {told.demand.rate_per_s:,.10g} requests/s, p99 within "
        f"{told.demand.p99_ns / 1e6:g} ms",
        sentence=_sentence(told),
        verdicts=_verdicts(told),
        checks=_checks(told),
        plots=[
            Plot(
                "p99",
                _p99(told.checks),
                "Loads that the costs were not fitted to. Band: within "
                f"{MOST_ERROR:.0%} of what was measured; a prediction outside does not hold.",
            )
        ],
        tables=[*tables, _loads(told.calibration)],
        cards=[] if told.plan is None else [_card(told.plan)],
        record=dict(record),
        name="plan.json",
    )


def _sentence(told: PlanRecord) -> str:
    calibration, earlier = told.calibration, told.settings.result
    rows, where = calibration.rows, place(told.environment)
    request = f"{rows} row{'s' * (rows != 1)}, {binary(rows * calibration.row_bytes)}"
    return (
        f"A simulation of {calibration.model} that decides as the server does, for requests of "
        f"{request}; its costs are measured{', on ' * bool(where)}{where}, and held against loads "
        "that they were not fitted to."
        + (f" Planned from the calibration in {earlier}." if earlier else "")
    )


def _verdicts(told: PlanRecord) -> list[Verdict]:
    # Why nothing is planned, the answer says.
    others = told.checks[1:] if told.plan is None else told.checks
    doubts: list[str | Linked] = [
        f"at {significant(one.rate_per_s)} requests/s the prediction does not hold: {one.verdict}"
        for one in others
        if not one.holds
    ]
    doubts += trust.disturbed(told.environment)
    verdicts = [Verdict("fail" if told.plan is None else "good", f"{told.answer}.")]
    return [*verdicts, Verdict("warn", "Read with care:", doubts)] if doubts else verdicts


def _card(plan: Plan) -> Card:
    limits = plan.chosen.limits
    return Card(
        f"--group-rows {limits.group_rows} --queue-delay-us {limits.queue_delay_ns // 1000}",
        _PREDICTED.colour,
        [
            (f"{plan.replicas:,}", "replicas"),
            (significant(plan.rate_per_s), "requests/s each"),
            (milliseconds(plan.chosen.predicted.p99_ns), "ms p99 predicted"),
            (milliseconds(plan.p99_ns), "ms with the error seen"),
        ],
    )


def _named(calibration: Calibration) -> Iterator[tuple[str, str, Observation]]:
    """Every load, with what it is and what it was for."""
    for load in calibration.sizes:
        yield f"lone requests, {load.rows} rows", "executions", load
    yield f"concurrency {calibration.busy.concurrency}", "what it can do", calibration.busy
    for purpose, loads in (("fitted", calibration.fitted), ("held out", calibration.held_out)):
        for load in loads:
            yield f"open {significant(load.rate_per_s or 0.0)}/s", purpose, load


def _checks(told: PlanRecord) -> list[Check]:
    """What the loads say of themselves. A calibration keeps what failed, not what passed."""
    checks = []
    for own, question in trust.OF_A_LOAD.items():
        verdicts: list[tuple[bool | None, str]] = []
        for name, _, load in _named(told.calibration):
            against = [doubt for doubt in load.doubts if doubt.startswith(f"{own}: ")]
            if own == "send lag" and load.rate_per_s is None and not against:
                continue  # older records do not judge it of closed loops
            text = f"{name}: {', '.join(against).removeprefix(f'{own}: ')}"
            verdicts.append((not against, text))
        failed = any(passed is False for passed, _ in verdicts)
        if question == trust.LABELS and not failed and not _labels_known(told.settings):
            checks.append(Check(question, None, "the record does not tell whether they are known"))
        elif question == trust.STEAL and not failed:
            checks.append(trust.steal(told.environment))
        else:
            checks += trust.gathered(question, verdicts, "loads")
    return checks


def _labels_known(settings: Settings) -> bool:
    """Whether the server was one of its own: a wrong label would have ended the calibration."""
    return settings.address is None and settings.result is None


def _p99(checks: Sequence[Checked]) -> Figure:
    rates = [one.rate_per_s for one in checks]
    measured = [None if one.load.p99_ns is None else one.load.p99_ns / 1e6 for one in checks]
    band = [
        (rate, value * (1 - MOST_ERROR), value * (1 + MOST_ERROR))
        for rate, value in zip(rates, measured, strict=True)
        if value is not None
    ]
    lines = [
        line_of(_MEASURED, rates, measured, "measured") | {"legendgroup": "measured"},
        line_of(_PREDICTED, rates, [one.predicted.p99_ns / 1e6 for one in checks], "predicted"),
    ]
    for line in lines:
        line["hovertemplate"] = f"{line['name']}: %{{y:.3~g}} ms<extra></extra>"
    layout = {
        "xaxis": linear_axis("requests/second of a replica") | {"rangemode": "tozero"},
        "yaxis": linear_axis("p99 (milliseconds)") | {"rangemode": "tozero"},
    }
    data = [band_of(_MEASURED.colour, band, "measured"), *lines]
    return {"data": data, "layout": layout_of("Predicted and Measured p99") | layout}


def _checks_table(checks: Sequence[Checked]) -> Table:
    columns = [column for group in _CHECK_COLUMNS for column in group]
    return Table(
        heading="Loads that were held out",
        columns=columns,
        over=[(text, len(group)) for text, group in zip(_OVER, _CHECK_COLUMNS, strict=True)],
        groups=[
            [
                (*check_cells(one), Cell("holds" if one.holds else "does not hold", not one.holds))
                for one in checks
            ]
        ],
        note=f"A prediction holds if its p99 is within {MOST_ERROR:.0%} of the measured one and "
        "no request failed. Nothing is planned beyond the last rate before one that does not.",
    )


def _costs(told: PlanRecord) -> Table:
    costs, line = told.costs, executions(told.calibration)
    times = (
        ("receiving a request", costs.receive_ns, "keeps other requests waiting"),
        ("the rest of a request", costs.answer_ns, "keeps no other waiting"),
        ("an execution", costs.batch_ns, "however many rows it has"),
        ("a row of it", costs.row_ns, f"of the line: {error_text(line)}"),
        ("gathering a row", costs.gather_ns, "if rows of several requests run together"),
    )
    shares = (
        ("speed of receiving", costs.receive_speed, "while a batch is executed"),
        ("speed of executing", costs.execute_speed, "while requests are received"),
        (
            "spread",
            costs.spread,
            "sigma, log-normal, of what keeps others waiting",
        ),
        ("answer spread", costs.answer_spread, "sigma of what keeps no other waiting"),
    )
    return Table(
        heading="Costs",
        columns=("what", "value", "unit", "of what, and when"),
        groups=[
            [(what, milliseconds(time_ns), "ms", when) for what, time_ns, when in times],
            [(what, f"{value:.0%}", "", when) for what, value, when in shares],
        ],
        left=[2, 3],
    )


def _options(plan: Plan, calibration: Calibration) -> Table:
    limits = calibration.limits
    rows: list[Row] = []
    for option in ways(plan):
        group_rows, *cells = option_cells(option)
        rows.append((group_rows, *cells, "chosen" if option == plan.chosen else ""))
    return Table(
        heading=f"Ways to batch at {significant(plan.rate_per_s)} requests/s of a replica",
        columns=(
            *("group rows", "queue delay, µs", "p50, ms", "p90, ms", "p99, ms", "batch rows"),
            "",
        ),
        groups=[rows],
        note=f"Simulated; only --group-rows {limits.group_rows} --queue-delay-us "
        f"{limits.queue_delay_ns // 1000} was measured. What binds: {plan.binds}.",
        left=[6],
    )


def _network(told: PlanRecord, plan: Plan) -> Table:
    return Table(
        heading="Network, incoming",
        columns=NETWORK_COLUMNS,
        groups=[list(network_cells(told.demand, plan, told.calibration))],
        note=f"Links of {told.demand.link_bits_per_s / 1e9:g} Gbit/s.",
    )


def _loads(calibration: Calibration) -> Table:
    """All that was measured, with what speaks against it."""
    return Table(
        heading="Loads that were measured",
        columns=(
            *("load", "for", "requests/s", "mean, ms", "p50, ms", "p90, ms", "p99, ms"),
            *("compute, ms", "batch rows", "samples", "errors", "what speaks against it"),
        ),
        groups=[
            [
                (
                    name,
                    purpose,
                    significant(load.requests_per_s),
                    *map(milliseconds, (load.mean_ns, load.p50_ns, load.p90_ns, load.p99_ns)),
                    milliseconds(load.compute_ns),
                    significant(load.batch_rows),
                    f"{load.samples:,}",
                    Cell(f"{load.errors:,}", bad=load.errors > 0),
                    "; ".join(load.doubts) or "-",
                )
                for name, purpose, load in _named(calibration)
            ]
        ],
        left=[1, 11],
        folded=True,
    )
