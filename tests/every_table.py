"""Every table of every program, of numbers as wide as they may become."""

import io
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import plan_calibrations
import report_records
from rich.console import Console, Group

from command_line.table import Table
from examples import run as examples_run
from measure.compare import record as provider_record
from measure.compare import table as provider_table
from measure.compare.analysis import analyse
from measure.core.comparison import Comparison, Ratio
from measure.core.record import read
from measure.diff import table as diff_table
from measure.diff.side import side
from measure.diff.verdicts import differences
from measure.engine.bisection import Found
from measure.limits import table as limits_table
from measure.limits.placement import place
from measure.limits.subject import subject
from measure.load import record as load_record
from measure.load import table as load_table
from measure.load.paired import Duel
from measure.load.summary import Goodput
from measure.loadgen import table as loadgen_table
from measure.loadgen.logs import Metric, Summary
from measure.loadgen.runs import Labels, Performance, Result
from measure.plan import table as plan_table
from measure.plan.capacity import Demand
from measure.servers.part import ReplicaPart
from measure.servers.server_use import ServerUse
from measure.side_by_side.rounds import Cell as BenchCell
from measure.side_by_side.show import rates
from measure.slo import table as slo_table
from measure.slo import tune_table
from measure.slo.elimination import Race
from measure.slo.slo import Trial
from measure.slo.tune import DEFAULTS, Candidate, Search, Tuning
from measure.sweep import record, table
from server.onnx import provider_list
from soak import show as soak_show

MS = 10**6
ROOT = Path(__file__).parents[1]
COLUMNS = "measure/presentation/columns.py"


def _sweep(agreement):
    points = read(report_records.sweep(), record.SweepRecord).points
    wide = [
        replace(
            point,
            batch_size=point.batch_size * 1009,
            throughput_per_s=point.throughput_per_s * 1234,
            wrong_labels=12_345,
            near_ties=123_456,
            errors=2_345,
            agreement=0.98765,
        )
        for point in points
    ]
    return table.render(wide, agreement=agreement)


def _parts():
    use = ServerUse(*("statistics", 12.5, None, None, 12_345_678, None, None, 1234.5, 1e9, {}))
    return tuple(
        ReplicaPart(
            *(address, 123_456_789, 1_234_567_890, 0.98765, 12_345 * MS, 123_456 * MS),
            *({"UNAVAILABLE": 123_456}, 12_345, 1_234, address == "", use),
        )
        for address in ("argmax-10.argmax.default.svc.cluster.local:8001", "")
    )


def _load_points():
    points = read(report_records.load(), load_record.LoadRecord).points
    return [
        replace(
            point,
            requests_per_s=point.requests_per_s * 1234.5,
            rows_per_s=point.rows_per_s * 1234.5,
            concurrency=1234.5,
            errors={"UNAVAILABLE": 1_234, "DEADLINE_EXCEEDED": 56_789},
            wrong_labels=9_876,
            goodput=Goodput(123.5, 123_456.7, 0.9876),
            server=ServerUse(
                *("metrics", 12.5, 1234.5, 2**40, 12_345_678, 123_456, 1_234_567, 1234.5),
                *(123_456 * MS, {}),
            ),
            replicas=_parts(),
        )
        for point in points
    ]


def _load():
    return load_table.render(_load_points(), None)


def _slo():
    points = _load_points()[:2]
    trials = [
        Trial(points[0], True, "p99 12.3 ms"),
        Trial(points[1], None, "1,234 samples are few"),
    ]
    return slo_table.render(Found(123_456.0, 234_567.0), trials, 50.0, None)


def _tune():
    tried = Candidate("64", 5000)
    point = read(report_records.load(), load_record.LoadRecord).points[0]
    ratio = Comparison(Ratio(0.5, 0.4, 0.6, 10), 0.002, True)
    tuning = Tuning(
        Search((DEFAULTS, tried), 100.0, 1.5, 1000.0, 10, 10),
        Race((100.0, 150.0), ended=True),
        tuple(
            (one, Trial(replace(point, asked=replace(point.asked, rate_per_s=rate)), True, ""))
            for one, rate in ((DEFAULTS, 100.0), (tried, 150.0))
        ),
        tried,
        Duel((), (), {"p99": ratio}),
    )
    return tune_table.render(tuning, 50.0)


def _compare():
    specs = ("cpu", "openvino:precision=bf16,device=GPU.1")
    content = report_records.compare(specs, (1.0, 1234.0), sizes=(1, 16, 64))
    return provider_table.render(analyse(read(content, provider_record.CompareRecord).measured))


def _limits():
    what = subject(report_records.sweep())
    roofs = report_records.roofs(gemm=123_456.0)
    return limits_table.render(roofs, {"pcie": "no GPU"}, place(what, roofs, {}))


def _loadgen():
    times = {"50.00": 12_345 * MS, "90.00": 23_456 * MS, "99.00": 34_567 * MS, "99.90": 45_678 * MS}
    told = Summary(
        verdict="INVALID",
        reasons=(),
        metric=Metric("90.0th percentile latency (ns)", 23_456.0 * MS),
        percentiles_ns=times,
        queries=123_456,
        estimate_ns=None,
        errors=(),
        version="6",
    )
    ran = Performance(told, Labels(1_234_567, 12_345, 23_456, 1.0), 1000.0, 2.5 * MS)
    results = [
        Result("MultiStream", ran, Labels(256, 0, 0, 0.98765), {}),
        Result("Server", None, None, {"performance": "UNAVAILABLE: 14"}),
    ]
    return loadgen_table.render(results, "not a valid MLPerf result: 5 s instead of 600 s")


def _plan():
    calibration = plan_calibrations.calibration()
    goal = Demand(5000.0, 100.0 * MS, 25e9)
    checks, made = report_records.planned_parts(calibration, goal)
    return [
        plan_table.checks_table(checks),
        plan_table.options_table(made, calibration),
        plan_table.network_table(goal, made, calibration),
    ]


def _diff():
    sides = side(report_records.sweep()), side(report_records.sweep(1.5, seed=1))
    return diff_table.render(differences(*sides, 0.1))


def _bench():
    rng = np.random.default_rng(0)
    return rates(
        [
            BenchCell(system, size, rng.uniform(1e5, 1e7, 3).tolist(), [], [], 0, wrong, 0)
            for system in ("raw_tcp", "stream", "plain_grpcio")
            for size, wrong in ((1, 0), (4, 0), (16, 0), (64, 0), (256, 0), (1024, 3))
        ]
    )


def _soak():
    part = {
        "name": "connections",
        "wanted": 10_000_000,
        "done": 10_000_000,
        "failed": 0,
        "rate_below": 2.9957e-7,
        "seconds": 12345.6,
        "counts": "messages to a server that answers each of them as it should",
    }
    return soak_show.table({"minutes": 1234.5, "parts": [part]})


def _examples():
    return examples_run.table(
        [
            examples_run.Outcome("typescript", labels=123_456, examples_per_second=1_234_567),
            examples_run.Outcome("swift", skipped="no swift of version 5.9 or newer is installed"),
            examples_run.Outcome("go", failed=True),
        ]
    )


EVERY = {
    "sweep": lambda: _sweep(agreement=False),
    "sweep over a narrower wire": lambda: _sweep(agreement=True),
    "load": _load,
    "slo": _slo,
    "tune": _tune,
    "compare": _compare,
    "limits": _limits,
    "loadgen": _loadgen,
    "plan": _plan,
    "diff": _diff,
    "bench": _bench,
    "soak": _soak,
    "examples": _examples,
    "providers": provider_list.providers,
    "provider options": provider_list.options,
}


@cache
def built():
    """Tables of `EVERY` by its names, and where they were made: files and lines."""
    places = set()
    make_it = Table.__init__

    def watched(self, *values, **named):
        caller = sys._getframe(1)
        if caller.f_code.co_filename == str(ROOT / COLUMNS):
            caller = caller.f_back
        path = Path(caller.f_code.co_filename).relative_to(ROOT)
        places.add((path.as_posix(), caller.f_lineno))
        make_it(self, *values, **named)

    Table.__init__ = watched
    try:
        tables = {name: _tables(make()) for name, make in EVERY.items()}
    finally:
        Table.__init__ = make_it
    return tables, places


def _tables(made):
    """Tables among what a program prints."""
    if isinstance(made, Table):
        return [made]
    parts = made.renderables if isinstance(made, Group) else made
    return [part for part in parts if isinstance(part, Table)]


def printed(part, width):
    """What a terminal of a width shows."""
    file = io.StringIO()
    Console(file=file, width=width, highlight=False).print(part)
    return file.getvalue()
