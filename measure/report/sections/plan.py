"""Show how many servers a rate takes, and what that was concluded from."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from measure.core.record import read
from measure.core.verdict import Check
from measure.plan.capacity import Option, Plan
from measure.plan.check import MOST_ERROR, Checked
from measure.plan.fit import executions
from measure.plan.observed import Calibration, Observation
from measure.plan.record import PlanRecord, Settings
from measure.plan.table import (
    CHECK_COLUMNS,
    OPTION_COLUMNS,
    binary,
    dtypes,
    error_text,
    fleet_text,
    network_columns,
    options_text,
    ways,
)
from measure.presentation.columns import Column
from measure.presentation.format import alarm, milliseconds, significant
from measure.presentation.looks import Look
from measure.report import trust
from measure.report.axes import Figure, band_of, layout_of, line_of, linear_axis
from measure.report.section import Card, Plot, Section, Table, Verdict, table_of
from measure.report.values import on

_MEASURED = Look("#0072B2", "s", "square")
_PREDICTED = Look("#D55E00", "^", "triangle-up")
_HELD_OUT = (
    f"A prediction holds if its p99 is within {MOST_ERROR:.0%} of the measured one and "
    "no request failed. Nothing is planned beyond the last rate before one that does not."
)
_LOAD_COLUMNS: tuple[Column[tuple[str, str, Observation]], ...] = (
    Column("load", lambda row: row[0]),
    Column("for", lambda row: row[1], words=True),
    Column("requests/s", lambda row: significant(row[2].requests_per_s)),
    Column("mean, ms", lambda row: milliseconds(row[2].mean_ns)),
    Column("p50, ms", lambda row: milliseconds(row[2].p50_ns)),
    Column("p90, ms", lambda row: milliseconds(row[2].p90_ns)),
    Column("p99, ms", lambda row: milliseconds(row[2].p99_ns)),
    Column("compute, ms", lambda row: milliseconds(row[2].compute_ns)),
    Column("batch rows", lambda row: significant(row[2].batch_rows)),
    Column("samples", lambda row: f"{row[2].samples:,}"),
    Column("errors", lambda row: alarm(row[2].errors)),
    Column("what speaks against it", lambda row: "; ".join(row[2].doubts) or "-", words=True),
)


def section(content: Mapping[str, Any]) -> Section:
    """Return what a page shows of a plan's record. RecordError where it cannot be read."""
    record = read(content, PlanRecord)
    return Section(
        heading=f"Servers for {record.demand.rate_per_s:,.10g} requests/s, p99 within "
        f"{record.demand.p99_ns / 1e6:g} ms",
        sentence=_sentence(record),
        verdicts=_verdicts(record),
        checks=_checks(record),
        plots=[
            Plot(
                "p99",
                _p99(record.checks),
                "Loads that the costs were not fitted to. Band: within "
                f"{MOST_ERROR:.0%} of what was measured; a prediction outside does not hold.",
            )
        ],
        tables=[
            table_of("Loads that were held out", CHECK_COLUMNS, [record.checks], note=_HELD_OUT),
            _costs(record),
            *(_planned(record, record.plan) if record.plan is not None else []),
            table_of(
                "Loads that were measured",
                _LOAD_COLUMNS,
                [list(_named(record.calibration))],
                folded=True,
            ),
        ],
        cards=[] if record.plan is None else [_card(record.plan)],
        record=dict(content),
        name="plan.json",
    )


def _sentence(record: PlanRecord) -> str:
    calibration, earlier = record.calibration, record.settings.result
    rows = calibration.rows
    request = f"{rows} row{'s' * (rows != 1)}, {binary(rows * calibration.row_bytes)}"
    return (
        f"A simulation of {calibration.model} that decides as the server does, for requests of "
        f"{request}; its costs are measured{on(record.environment)}, and held against loads "
        "that they were not fitted to."
        + (f" Planned from the calibration in {earlier}." if earlier else "")
    )


def _verdicts(record: PlanRecord) -> list[Verdict]:
    # Why nothing is planned, the answer says.
    others = record.checks[1:] if record.plan is None else record.checks
    doubts = [
        f"at {significant(one.rate_per_s)} requests/s the prediction does not hold: {one.verdict}"
        for one in others
        if not one.holds
    ]
    verdict = Verdict("fail" if record.plan is None else "good", f"{record.answer}.")
    together = []
    if record.fleet is not None:
        text = f"{fleet_text(record.fleet)}."
        together.append(Verdict("good" if record.fleet.holds else "fail", text))
    return [verdict, *together, *trust.with_care(record.environment, doubts)]


def _card(plan: Plan) -> Card:
    return Card(
        options_text(plan.chosen.limits),
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


def _checks(record: PlanRecord) -> list[Check]:
    """What the loads say of themselves. A calibration keeps what failed, not what passed."""
    checks = []
    for own, question in trust.OF_A_LOAD.items():
        verdicts: list[tuple[bool | None, str]] = []
        for name, _, load in _named(record.calibration):
            against = [doubt for doubt in load.doubts if doubt.startswith(f"{own}: ")]
            if own == "send lag" and load.rate_per_s is None and not against:
                continue  # older records do not judge it of closed loops
            text = f"{name}: {', '.join(against).removeprefix(f'{own}: ')}"
            verdicts.append((not against, text))
        failed = any(passed is False for passed, _ in verdicts)
        if question == trust.LABELS and not failed and not _labels_known(record.settings):
            checks.append(Check(question, None, "the record does not say whether they are known"))
        elif question == trust.STEAL and not failed:
            checks.append(trust.steal(record.environment))
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


def _costs(record: PlanRecord) -> Table:
    costs, line = record.costs, executions(record.calibration)
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


def _planned(record: PlanRecord, plan: Plan) -> Iterator[Table]:
    calibration = record.calibration
    chosen: Column[Option] = Column("", lambda one: "chosen" * (one == plan.chosen), words=True)
    yield table_of(
        f"Ways to batch at {significant(plan.rate_per_s)} requests/s of a replica",
        (*OPTION_COLUMNS, chosen),
        [ways(plan)],
        note=f"Simulated; only {options_text(calibration.limits)} was measured. What binds: "
        f"{plan.binds}.",
    )
    yield table_of(
        "Network, incoming",
        network_columns(record.demand, plan, calibration),
        [dtypes(calibration)],
        note=f"Links of {record.demand.link_bits_per_s / 1e9:g} Gbit/s.",
    )
