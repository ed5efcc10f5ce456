"""The command `plan`, with calibrations that are known and with a server that is measured."""

import functools
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from plan_calibrations import COSTS, calibration, loaded

from measure.__main__ import main
from measure.core.record import decoded, encoded
from measure.plan import capacity
from measure.plan.calibration import FITTED_SHARES
from measure.plan.check import trusted
from measure.plan.observed import Calibration
from measure.plan.record import PlanRecord
from measure.report import kinds, page
from model.export import export
from model.weights import from_seed

ROOT = Path(__file__).resolve().parents[3]
CLASSES, FEATURES = 8, 64
# Of each simulation that looks for a plan.
REQUESTS = 1000
DELAY_US = 20_000


@pytest.fixture(scope="module")
def made():
    loads = [loaded(rate, seed=12) for rate in (100.0, 250.0)]
    return calibration(fitted=(loaded(90.0), loaded(280.0)), held_out=tuple(loads))


@pytest.fixture
def plan(tmp_path, capsys, monkeypatch):
    """Plan from a calibration: exit code, record, what was printed."""
    # How near the fit comes is tested by itself, and so is the search for a plan; here they need
    # not look for long.
    monkeypatch.setattr("measure.plan.fit._TRIES", 6)
    short = functools.partial(capacity.plan, requests=REQUESTS)
    monkeypatch.setattr("measure.commands.plan.plan", short)

    def run(calibration, *options):
        folder = tmp_path / "earlier"
        folder.mkdir(exist_ok=True)
        content = {"schema": PlanRecord.SCHEMA, "environment": {"cores": 2}}
        text = json.dumps(content | {"calibration": encoded(calibration)})
        (folder / "plan.json").write_text(text)
        out = tmp_path / "out"
        words = ["plan", "--result", folder, "--out", out, *options]
        status = main([str(word) for word in words])
        return status, json.loads((out / "plan.json").read_text()), capsys.readouterr().out

    return run


def test_a_million_requests_a_second_are_planned(plan, made):
    status, record, said = plan(made, "--rate", 1_000_000, "--p99-ms", 1000)
    assert status == 0
    assert record["plan"]["replicas"] == 1_000_000 / 250
    assert record["plan"]["chosen"]["limits"]["group_rows"] == made.limits.group_rows
    assert record["answer"] in " ".join(said.split())
    assert "4,000 replicas with 250 requests/s each" in record["answer"]
    # 10^6 MiB, and a quarter of that as int8.
    assert "977 GiB/s" in said
    assert "244 GiB/s" in said
    assert decoded(record["calibration"], Calibration) == made
    assert record["environment"] == {"cores": 2}
    assert [one["load"]["rate_per_s"] for one in record["checks"]] == [100, 250]
    for one in record["checks"]:
        error = one["predicted"]["p99_ns"] / one["load"]["p99_ns"] - 1
        assert one["p99_error"] == pytest.approx(error)
        assert f"{error:+.0%}" in said


def test_nothing_is_planned_where_predictions_do_not_hold(plan, made):
    wrong = replace(
        made,
        held_out=tuple(
            replace(o, p99_ns=2 * o.p99_ns, doubts=("stable: no",)) for o in made.held_out
        ),
    )
    status, record, said = plan(wrong, "--rate", 100, "--p99-ms", 1000)
    assert status == 1
    assert record["plan"] is None
    assert "no plan: at 100 requests/s" in said
    assert "off by more than 20% (stable: no)" in record["answer"]


def test_a_bound_that_no_number_of_replicas_meets_is_refused(plan, made):
    status, record, said = plan(made, "--rate", 100, "--p99-ms", 3)
    assert (status, record["plan"]) == (1, None)
    alone_ms = (COSTS.receive_ns + COSTS.answer_ns + COSTS.execute_ns(1, 1)) / 1e6
    assert f"a lone request takes {alone_ms:.2f} ms" in " ".join(said.split())


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "is truncated"),
        ("[]", "is JSON of another kind"),
        ('{"schema": "argmax-serving/load/1"}', "has the schema argmax-serving/load/1"),
        (
            json.dumps({"schema": PlanRecord.SCHEMA, "environment": {}}),
            "the record lacks 'calibration'",
        ),
    ],
)
def test_a_record_of_something_else_is_refused_in_one_line(tmp_path, capsys, content, complaint):
    (tmp_path / "plan.json").write_text(content)
    options = ["--rate", "1", "--p99-ms", "1", "--out", str(tmp_path / "out")]
    assert main(["plan", "--result", str(tmp_path), *options]) == 2
    said = capsys.readouterr().err
    assert complaint in said
    assert said.count("\n") == 1


def test_what_a_server_shows_is_planned_with(serve, graphs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("measure.plan.calibration.FITTED_SHARES", (0.4,))
    monkeypatch.setattr("measure.plan.calibration.HELD_OUT_SHARES", (0.5,))
    monkeypatch.setattr("measure.plan.calibration._PASSES", 1)
    monkeypatch.setattr("measure.plan.fit._TRIES", 5)
    # A p99 of 69 samples is worth little, and takes less than a second.
    monkeypatch.setattr("measure.core.confidence.CONFIDENCE", 0.5)
    export(graphs.folder, "linear_argmax", from_seed(CLASSES, FEATURES, 0), "float32", 0)
    address = serve(graphs.folder, group_rows=1, workers=2000).address
    words = ["plan", "--rate", 1000, "--p99-ms", 10_000, "--classes", CLASSES, "--seconds", "0.3"]
    status = main([str(word) for word in (*words, "--address", address, "--out", tmp_path)])
    assert "error" not in capsys.readouterr().err
    record = json.loads((tmp_path / "plan.json").read_text())
    seen = decoded(record["calibration"], Calibration)
    assert (seen.limits.group_rows, seen.row_bytes) == (1, 4 * FEATURES)
    assert [round(o.rate_per_s / seen.busy.requests_per_s, 2) for o in seen.fitted] == [0.4]
    # Whether this machine was quiet enough is not what is tested, but that the verdict is followed.
    holds = [one["verdict"] for one in record["checks"]] == ["holds"]
    assert status == (0 if holds else 1)
    assert record["answer"].startswith("1,000 requests/s" if holds else "no plan")


# Twenty loads, and a search with hundreds of simulations.
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_server_is_measured_and_planned_with(launch, graphs, tmp_path):
    export(graphs.folder, "linear_argmax", from_seed(CLASSES, FEATURES, 0), "float32", 0)
    token = tmp_path / "token"
    token.write_text("token-that-may-infer\n")
    server = launch(
        graphs.folder,
        *("--group-rows", "2", "--queue-delay-us", "100", "--workers", "2000"),
        *("--token-file", token),
    )
    words = ["--rate", 1000, "--p99-ms", 10_000, "--classes", CLASSES, "--seconds", "0.3"]
    words += ["--address", server.address, "--token-file", token, "--out", tmp_path]
    done = subprocess.run(
        [sys.executable, "-m", "client", "plan", *map(str, words)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=280,
        check=False,
    )
    assert "error" not in done.stderr
    written = (tmp_path / "plan.json").read_text()
    assert token.read_text().strip() not in written
    record = json.loads(written)
    assert record["settings"]["token_file"] == str(token)
    seen = decoded(record["calibration"], Calibration)
    assert (seen.limits.group_rows, seen.limits.queue_delay_ns) == (2, 100_000)
    assert (seen.row_bytes, seen.dtype) == (4 * FEATURES, "float32")
    assert [o.rows for o in seen.sizes] == [1, 2]
    assert seen.busy.concurrency == 16
    shares = [round(o.rate_per_s / seen.busy.requests_per_s, 2) for o in seen.fitted]
    assert shares == list(FITTED_SHARES)
    assert len(record["checks"]) == 3
    assert all(one["load"]["samples"] > 0 for one in record["checks"])
    # Whether this machine was quiet enough is not what is tested, but that the verdict is followed.
    holds = record["checks"][0]["verdict"] == "holds"
    assert done.returncode == (0 if holds else 1)
    assert (record["plan"] is not None) == holds
    assert record["answer"].startswith("1,000 requests/s" if holds else "no plan")


@pytest.fixture
def together(launch, graphs, tmp_path):
    """Start servers whose answers wait for a queue delay, not for a core; plan for all of them."""

    def run(servers, *options, seconds):
        if not (graphs.folder / "linear_argmax").exists():
            export(graphs.folder, "linear_argmax", from_seed(CLASSES, FEATURES, 0), "float32", 0)
        delayed = ["--threads", 1, "--group-rows", 64, "--queue-delay-us", DELAY_US]
        addresses = [launch(graphs.folder, *delayed).address for _ in range(servers)]
        words = ["plan", "--address", ",".join(addresses), "--classes", CLASSES, "--out", tmp_path]
        words += ["--seconds", seconds, *options]
        status = main([str(word) for word in words])
        return status, json.loads((tmp_path / "plan.json").read_text()), addresses

    return run


def check_fleet(record, addresses):
    """What must be so of the load of all servers, whether it holds or not."""
    fleet = record["fleet"]
    assert fleet["servers"] == len(addresses)
    each_per_s = record["plan"]["rate_per_s"]
    assert fleet["rate_per_s"] == pytest.approx(each_per_s * len(addresses))
    assert fleet["point"]["asked"]["rate_per_s"] == fleet["rate_per_s"]
    assert {part["address"] for part in fleet["point"]["replicas"]} == set(addresses)
    p99_ns = fleet["point"]["latency_ns"]["p99"]
    off = p99_ns is None or p99_ns > 1.2 * fleet["predicted_p99_ns"]
    assert not (fleet["holds"] and off)
    assert (fleet["verdict"] == "holds") == fleet["holds"]
    assert decoded(record, PlanRecord).fleet.holds == fleet["holds"]
    assert f"{len(addresses)} servers together" in page.render([kinds.section(record)])


def test_a_plan_is_held_against_two_servers_together(together, capsys, monkeypatch):
    monkeypatch.setattr("measure.plan.calibration.FITTED_SHARES", (0.4,))
    monkeypatch.setattr("measure.plan.calibration.HELD_OUT_SHARES", (0.3,))
    monkeypatch.setattr("measure.plan.calibration._PASSES", 1)
    monkeypatch.setattr("measure.plan.fit._TRIES", 5)
    monkeypatch.setattr("measure.core.confidence.CONFIDENCE", 0.5)
    # How near predictions come is not what is tested.
    monkeypatch.setattr("measure.plan.check.MOST_ERROR", 1e6)
    status, record, addresses = together(2, "--rate", 1000, "--p99-ms", 60_000, seconds="0.5")
    check_fleet(record, addresses)
    # Every request waits for the delay.
    assert record["fleet"]["predicted_p99_ns"] > DELAY_US * 1000 / 2
    assert status == (0 if record["fleet"]["holds"] else 1)
    said = " ".join(capsys.readouterr().out.split())
    assert f"2 servers together at {record['fleet']['rate_per_s']:.3g} requests/s" in said


# Each measures twenty loads of one server, then one of all.
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("servers", [2, 3])
def test_as_many_servers_as_planned_carry_the_rate(together, servers):
    # The rate is chosen afterwards, from the rate that one of them is planned for.
    status, record, addresses = together(servers, "--rate", 1e6, "--p99-ms", 200, seconds="3")
    if record["plan"] is None:
        # This machine was too busy for a prediction, which is what is said.
        assert (status, record["fleet"]) == (1, None)
        assert record["answer"].startswith("no plan")
        return
    check_fleet(record, addresses)
    seen = decoded(record, PlanRecord)
    demand = replace(seen.demand, rate_per_s=seen.fleet.rate_per_s)
    made = capacity.plan(demand, seen.calibration, seen.costs, trusted(seen.checks))
    # So many requests are planned to take as many servers as these were, or one more by rounding.
    assert made.replicas in (servers, servers + 1)
    assert status == (0 if seen.fleet.holds else 1)
