"""Records of every kind, made of numbers that are known, as their commands write them."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import plan_calibrations

from client.connection.credentials import CredentialFiles
from measure.compare import record as provider_record
from measure.compare.analysis import analyse
from measure.compare.runs import Cell, Measured, Provider
from measure.core.comparison import COMPARE_SCHEMA, Calibration
from measure.core.record import dumps
from measure.core.stages import Sample, Stages
from measure.core.verification import Experiment
from measure.engine.slice import Slice
from measure.limits import record as limits_record
from measure.limits.peaks import COPY, FRESH, GEMM, PCIE, READ, TCP, UNITS, UNIX, Roof
from measure.limits.placement import place
from measure.limits.subject import subject
from measure.load import record as load_record
from measure.load.summary import Asked
from measure.load.summary import summarise as summarise_load
from measure.loadgen import record as loadgen_record
from measure.loadgen.logs import Metric, Summary
from measure.loadgen.runs import Labels, Performance, Plan, Result
from measure.loadgen.worker_job import SCENARIOS, Rules
from measure.overload import overload as overloaded
from measure.plan import record as plan_record
from measure.plan import table as plan_table
from measure.plan.capacity import Demand, plan
from measure.plan.check import check, trusted
from measure.servers.statistics import ServerStatistics
from measure.side_by_side import record as bench_record
from measure.side_by_side.compose import Results
from measure.side_by_side.goals import all_goals
from measure.side_by_side.rounds import Cell as BenchCell
from measure.side_by_side.service import Settings as BenchSettings
from measure.sweep import record
from measure.sweep.summary import summarise

MS = 10**6
SETTINGS = {"classes": 64, "features": 1024, "dtype": "float32", "seed": 0, "threads": 2}
ENVIRONMENT = {
    "cpu_model": "A chip",
    "cores": 2,
    "kernel": "Linux 6",
    "steal_fraction": 0.001,
    "versions": {"python": "3.11", "numpy": "2"},
    "command_line": "python -m client " + "--some-long-option value " * 12,
}
STAGES = Stages(
    *(1 * MS, 2 * MS, 1 * MS, 3 * MS, 4.0, "CPUExecutionProvider"),
    receive_ns=MS,
    handover_ns=MS // 2,
)
INSIDE = ServerStatistics(
    *(100, 100, 200, 200 * MS, 200 * MS, 300 * MS, 50 * MS),
    sent=100,
    send_ns=40 * MS,
)
BEST = {GEMM: 100.0, READ: 10.0, COPY: 8.0, FRESH: 2.0, TCP: 3.0, UNIX: 4.0}


def _through_text(content):
    return json.loads(dumps(content))


def sweep(factor=1.0, seed=0, **changes):
    """A sweep whose batches take a millisecond and a tenth a row, times `factor`, with noise."""
    rng = np.random.default_rng(seed)
    points = []
    for mode in ("local", "unary", "stream"):
        for size in (1, 16, 256):
            times = factor * (MS + MS * size / 10) * rng.lognormal(0, 0.05, max(512 // size, 12))
            samples = [
                Sample(
                    *(mode, size, 0, int(t) // 2, int(t), size),
                    messages=1,
                    stages=STAGES,
                    send_ns=MS // 10,
                    receive_ns=MS // 10,
                )
                for t in times
            ]
            points.append(summarise(mode, size, samples))
    content = record.to_json(SETTINGS | changes, ENVIRONMENT, points)
    return _through_text(content)


def compare(specs=("cpu", "cpu"), factors=(1.0, 1.0), sizes=(1, 64)):
    """A comparison of providers, each so many times slower than the numbers say."""
    rng = np.random.default_rng(0)
    names = [spec if i == specs.index(spec) else f"{spec} #{i + 1}" for i, spec in enumerate(specs)]
    cells = []
    for mode in ("local", "stream"):
        for size in sizes:
            for name, factor in zip(names, factors, strict=True):
                times = factor * (MS + MS * size / 10) * rng.lognormal(0, 0.02, 16)
                rounds = tuple(int(t) for t in times)
                samples = [Sample(mode, size, 0, t, t, size, stages=STAGES) for t in rounds]
                cells.append(Cell(name, summarise(mode, size, samples), rounds))
    providers = [
        Provider(name, spec, (MS, MS), 2**27) for name, spec in zip(names, specs, strict=True)
    ]
    measured = Measured(tuple(providers), tuple(cells))
    settings = SETTINGS | {"ep": list(specs), "rounds": 16, "starts": 1}
    return _through_text(provider_record.to_json(settings, ENVIRONMENT, analyse(measured)))


def _load_point(asked, rate, latency_ns, lag_ns=1000, due=None, steal=0.0, seed=0):
    rng = np.random.default_rng(seed)
    windows = []
    for start in range(3):
        one = Slice(start * 10**9, (start + 1) * 10**9, due=due or rate)
        for _ in range(rate):
            took_ns = int(latency_ns * rng.lognormal(0, 0.2))
            one.answer(took_ns, took_ns, 2)
            one.send(lag_ns)
            one.client_times(MS // 2, MS)
            one.decode_ns += MS // 4
            one.split(STAGES)
        one.in_flight_area_ns = one.latency_sum_ns
        windows.append(one)
    last = Slice(3 * 10**9, 3 * 10**9)
    return summarise_load(asked, windows, last, labels_known=True, steal=steal, statistics=INSIDE)


def load(factor=1, **fields):
    """Open loops of 100, 200 and 300 requests a second, the last of which is not kept up with."""
    points = [
        _load_point(
            Asked("open", "unary", 2, 1, rate_per_s=float(rate), arrivals="poisson"),
            min(rate, 220),
            latency_ms * MS * factor,
            due=rate,
            **fields,
        )
        for rate, latency_ms in ((100, 10), (200, 15), (300, 200))
    ]
    points.append(_load_point(Asked("closed", "stream", 2, 1, concurrency=2), 200, 10 * MS))
    settings = SETTINGS | {"rows": 2, "model": "linear_argmax", "processes": 1}
    return _through_text(load_record.to_json(settings, ENVIRONMENT, points, None))


def slo(met=200.0, missed=210.0):
    """A search that found a rate."""
    points = [
        _load_point(Asked("open", "unary", 2, 1, rate_per_s=rate, arrivals="poisson"), 200, 9 * MS)
        for rate in (met, missed)
    ]
    settings = SETTINGS | {"rows": 2, "model": "linear_argmax", "processes": 1, "p99_ms": 50.0}
    settings["modes"] = ["unary"]
    content = load_record.to_json(settings, ENVIRONMENT, points, None)
    content["found"] = {"met": met, "missed": missed, "untold": None}
    content["answer"] = f"p99 <= 50 ms: {met} requests/s"
    content["trials"] = [{"met": True, "because": "below"}, {"met": False, "because": "above"}]
    return _through_text(content)


def roofs(**best):
    """Roofs of round numbers, each of three rounds."""
    rates = BEST | best
    return [Roof(n, UNITS[n], (rate / 2, rate, rate * 0.75)) for n, rate in rates.items()]


def limits(of=None, clients=None, **best):
    """The limits with a sweep below them."""
    what = subject(of or sweep())
    content = limits_record.to_json(
        {"result": "results/sweep", "rounds": 3, "threads": 2, "dtype": "float32", "ep": "cpu"},
        ENVIRONMENT,
        roofs(**best),
        {PCIE: "no GPU"},
        what,
        place(what, roofs(**best), clients or {}),
        [],
    )
    return _through_text(content)


def calibrated(differing=0, schema=COMPARE_SCHEMA):
    """An A/A test of ten runs, of which so many claimed a difference."""
    claimed = Calibration(tuple(number < differing for number in range(10)))
    return {
        "schema": schema,
        "environment": ENVIRONMENT,
        "settings": SETTINGS,
        "answer": claimed.text,
        "passed": claimed.passed,
        "runs": [{"differs": differs, "pairs": [{}] * 12} for differs in claimed.claimed],
    }


def loadgen(quick_s=5.0, wrong=0, reasons=(), failures=None):
    """Runs of all scenarios; of Server's, what LoadGen or the labels have against it."""
    results = []
    for number, scenario in enumerate(SCENARIOS, 1):
        server, offline = scenario == "Server", scenario == "Offline"
        times = {"50.00": 2 * MS, "90.00": 3 * MS, "99.00": 5 * MS, "99.90": 9 * MS}
        verdict = Summary(
            verdict="INVALID" if server and reasons else "VALID",
            reasons=tuple(reasons) if server else (),
            metric=Metric("Samples per second", 900.0)
            if server or offline
            else Metric("90.0th percentile latency (ns)", 3.0 * MS * number),
            percentiles_ns={name: time_ns * number for name, time_ns in times.items()},
            queries=1 if offline else 2000,
            estimate_ns=None if server or offline else 4 * MS,
            errors=(),
            version="6.0 @ abc",
        )
        labels = Labels(2000, wrong if server else 0, 1, 1.0)
        ran = Performance(verdict, labels, 1000.0, 2.5 * MS)
        if server and failures:
            ran = None
        told = dict(failures or {}) if server else {}
        results.append(Result(scenario, ran, Labels(256, 0, 0, 1.0), told))
    made = Plan(
        scenarios=SCENARIOS,
        experiment=Experiment(64, 1024, "float32", 0, 256),
        rules=Rules(quick_s, 100.0, None, None),
        transport="stream",
        in_flight=32,
        timeout_s=30.0,
        address=None,
        model="linear_argmax",
        threads=2,
        ep="cpu",
        out=Path("results/loadgen"),
        credential_files=CredentialFiles(),
    )
    return _through_text(loadgen_record.to_json(made, ENVIRONMENT, results))


@cache
def planned_parts(calibration, goal):
    """Checks and plan, of simulations that are not long."""
    checks = check(calibration, plan_calibrations.COSTS)
    trust = trusted(checks)
    made = trust and plan(goal, calibration, plan_calibrations.COSTS, trust, requests=400)
    return checks, made


def planned(calibration=None, **settings):
    """A plan from a calibration, with the costs of `plan_calibrations`."""
    calibration = calibration or plan_calibrations.calibration()
    goal = Demand(5000.0, 100.0 * MS, 25e9)
    checks, made = planned_parts(calibration, goal)
    told = {"rate": 5000.0, "p99_ms": 100.0, "link_gbit": 25.0, "address": None, "result": None}
    return _through_text(
        plan_record.to_json(
            told | settings,
            ENVIRONMENT,
            calibration,
            plan_calibrations.COSTS,
            checks,
            made,
            plan_table.answer(goal, made) if made else plan_table.refusal(checks),
        )
    )


def bench(stream=900.0, wrong=0, peer_error=None):
    """The service beside a raw socket of 1,000 rows a second, and a peer that may have failed."""
    results = Results(skipped={"kserve": "not asked for"})
    for system, kind, rate in (("raw_tcp", "limit", 1000.0), ("stream", "service", stream)):
        results.kinds[system] = kind
        rates = [rate * factor for factor in (0.99, 1.0, 1.01)]
        times = [1024e9 / value for value in rates]
        results.cells.append(BenchCell(system, 1024, rates, times, [0.03] * 3, 3072, wrong, 1))
    results.kinds["triton"] = "peer"
    results.cells.append(BenchCell("triton", 1024, error=peer_error))
    settings = BenchSettings(
        Experiment(64, 1024, "float32", 0, 1024), (1024,), 3, 2, ("triton",), 1, Path("results")
    )
    goals = all_goals(results.measured())
    return _through_text(bench_record.to_json(settings, ENVIRONMENT, results, goals))


def overload(failed=()):
    """An overloaded server that reaches its goals."""
    three = {"alone_p99_ms": 10.0, "crowded_p99_ms": 20.0, "crowd_per_s": 90.0}
    three |= {"peak_per_s": 100.0, "offered_per_s": 300.0, "goodput_per_s": 95.0}
    three |= {"refused": 200, "refusal_p99_ms": 4.0}
    rounds = overloaded.Rounds(**{name: [value] * 3 for name, value in three.items()})
    rounds.failed += failed
    settings = overloaded.Settings(rounds=3)
    return _through_text(overloaded.to_json(settings, ENVIRONMENT, rounds))


EVERY = {
    "sweep": sweep,
    "compare": compare,
    "load": load,
    "slo": slo,
    "limits": limits,
    "aa": calibrated,
    "loadgen": loadgen,
    "plan": planned,
    "bench": bench,
    "overload": overload,
}
