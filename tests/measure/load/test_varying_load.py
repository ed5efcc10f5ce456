"""Ramps and replayed schedules of real servers, and what is recorded beside them."""

import csv
import json
import signal
from collections import Counter

import pytest

from command_line.interruption import Interrupted
from measure.__main__ import main
from measure.core.record import read
from measure.load.export.lines import COLUMNS
from measure.load.record import LoadRecord
from measure.load.terminal import LoadProgress
from measure.report import kinds, page
from model.export import export
from model.weights import from_seed

CLASSES, FEATURES = 8, 64
SHORT = ["--warm-up-s", 0.1, "--window-s", 0.2, "--max-windows", 3, "--classes", CLASSES]
TRACE = [(0.0, 1), (0.0, 4), (0.05, 1), (0.31, 2), (0.32, 4), (0.33, 4), (0.6, 1)]


@pytest.fixture(scope="module")
def server(serve, graphs):
    export(graphs.folder, "linear_argmax", from_seed(CLASSES, FEATURES, 0), "float32", 0)
    graphs.add_steps()
    started = serve(graphs.folder, metrics_address="127.0.0.1:0")
    started.models = graphs.folder
    return started


@pytest.fixture
def run(tmp_path, capsys, server):
    """Load the server with options; the record, what was printed."""

    def load(*options, status=0):
        # Another --address would be that of a second server.
        address = [] if "--address" in options else ["--address", server.address]
        words = ["load", *address, "--out", tmp_path, *SHORT, *options]
        code = main([str(word) for word in words])
        printed = capsys.readouterr().out
        assert status in (code, None), printed
        return json.loads((tmp_path / "load.json").read_text()), printed

    return load


@pytest.fixture
def trace(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("at_s,rows\n" + "".join(f"{at_s},{rows}\n" for at_s, rows in TRACE))
    return path


def exported(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def metrics(server):
    return f"http://{server._management.address}/metrics"


def test_a_schedule_is_replayed_whole_with_the_server_and_every_request(
    run, server, trace, tmp_path
):
    options = ["--server-metrics", metrics(server), "--goodput-ms", 60_000]
    path = tmp_path / "requests.csv"
    content, printed = run("--schedule", trace, *options, "--export", path)
    (point,) = content["points"]
    assert point["asked"]["schedule"] == "trace.csv"
    assert point["latency_ns"]["samples"] == len(TRACE)
    assert (point["errors"], point["wrong_labels"], point["left_behind"]) == ({}, 0, 0)
    seconds = point["elapsed_ns"] / 1e9
    assert seconds >= TRACE[-1][0]
    assert point["rows_per_s"] * seconds == pytest.approx(sum(rows for _, rows in TRACE))
    assert "stable" not in {check["name"] for check in point["checks"]}
    schedule = content["settings"]["schedule"]
    assert (schedule["requests"], schedule["seconds"], schedule["speed"]) == (7, 0.6, 1.0)
    # All that ended were within the bound.
    assert point["goodput"]["share"] == 1
    assert point["goodput"]["requests_per_s"] == pytest.approx(len(TRACE) / seconds)
    # Each process's and each kind's first request came before.
    used = point["server"]
    assert used["source"] == "metrics"
    assert (used["answered"], used["failed"], used["refused"]) == (len(TRACE), 0, 0)
    assert used["cpu_s"] > 0
    assert used["rss_bytes"] > 2**20
    assert 1 <= used["batch_rows"] <= 16
    assert used["queue_ns"] > 0
    name = 'nv_inference_count{model="linear_argmax",version="1"}'
    assert used["counters"][name] == sum(rows for _, rows in TRACE)
    assert "schedule trace.csv" in printed
    check_export(exported(path), server)
    assert (tmp_path / "load-schedule.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "load-open-loop.png").exists()
    html = page.render([kinds.section(content)])
    assert "The server meanwhile" in html
    assert "Requests of the Schedule over Time" in html


def check_export(lines, server):
    """What the export of TRACE must hold, in the order in which requests were due."""
    lines.sort(key=lambda line: (int(line["scheduled_unix_ns"]), int(line["rows"])))
    assert list(lines[0]) == list(COLUMNS)
    assert [int(line["rows"]) for line in lines] == [rows for _, rows in TRACE]
    began_ns = int(lines[0]["scheduled_unix_ns"])
    for line, (at_s, rows) in zip(lines, TRACE, strict=True):
        scheduled, sent, answered = (
            int(line[f"{name}_unix_ns"]) for name in ("scheduled", "sent", "answered")
        )
        assert scheduled - began_ns == pytest.approx(at_s * 1e9, abs=2)
        assert scheduled <= sent < answered
        assert int(line["latency_ns"]) == answered - scheduled
        assert (line["status"], line["phase"], line["point"]) == ("OK", "measured", "0")
        assert line["server"] == server.address
        row_bytes = FEATURES * 4
        assert 0 < int(line["request_bytes"]) - rows * row_bytes < 300
        assert int(line["answer_bytes"]) > rows * 8
        for stage in ("decode_ns", "queue_ns", "compute_ns", "handover_ns", "send_ns"):
            assert int(line[stage]) > 0
        assert float(line["batch_rows"]) >= rows


@pytest.mark.parametrize("mode", ["stream", "shm"])
def test_processes_and_modes_share_a_schedule(run, trace, mode):
    content, _ = run("--schedule", trace, "--speed", 2, "--processes", 2, "--modes", mode)
    (point,) = content["points"]
    assert point["latency_ns"]["samples"] == len(TRACE)
    assert (point["errors"], point["wrong_labels"]) == ({}, 0)
    assert point["asked"]["schedule"] == "trace.csv x2"


def test_a_schedule_may_name_other_models_whose_labels_are_unchecked(run, tmp_path):
    path = tmp_path / "trace.jsonl"
    models = ["linear_argmax", "steps", "linear_argmax"]
    lines = [{"at_s": number / 50, "model": model} for number, model in enumerate(models)]
    path.write_text("\n".join(map(json.dumps, lines)))
    table = tmp_path / "requests.csv"
    content, printed = run("--schedule", path, "--export", table)
    assert content["points"][0]["latency_ns"]["samples"] == 3
    assert content["unchecked_because"] == "the schedule has other models: steps"
    assert "labels are unchecked" in printed
    assert Counter(line["model"] for line in exported(table)) == Counter(models)


def test_an_interrupted_schedule_keeps_what_was_measured(run, tmp_path, monkeypatch):
    path = tmp_path / "trace.csv"
    path.write_text("at_s\n0\n0.01\n3600\n")

    def interrupt(self, step):
        if step.window is not None:
            raise Interrupted(signal.SIGINT)

    monkeypatch.setattr(LoadProgress, "__call__", interrupt)
    content, _ = run("--schedule", path, status=130)
    assert content["partial"] is True
    assert content["points"][0]["latency_ns"]["samples"] == 2


def test_a_ramp_of_rates_is_recorded_part_by_part(run, server, tmp_path):
    ramp = "20:50:2s:4"
    path = tmp_path / "requests.csv"
    options = ["--server-metrics", metrics(server), "--export", path, "--arrivals", "constant"]
    content, printed = run("--ramp", ramp, *options)
    points = content["points"]
    rates = [20, 30, 40, 50]
    assert [point["asked"]["rate_per_s"] for point in points] == pytest.approx(rates)
    assert {point["asked"]["ramp"] for point in points} == {ramp}
    # As many are due as the rates add up to, but for where the slices' ends fall.
    assert sum(p["due_per_s"] * p["elapsed_ns"] / 1e9 for p in points) == pytest.approx(70, abs=25)
    answered = [line for line in exported(path) if line["phase"] == "measured"]
    of_points = Counter(int(line["point"]) for line in answered)
    assert of_points == {i: p["latency_ns"]["samples"] for i, p in enumerate(points)}
    assert {line["phase"] for line in exported(path)} >= {"warm-up", "measured"}
    # Of the warm-up none that had ended before, and at the end those that were under way, too.
    used = [point["server"]["answered"] for point in points]
    assert 0 < sum(used) <= len(exported(path))
    assert "open ramp 20/s" in printed
    assert (tmp_path / "load-open-loop.png").exists()
    assert read(content, LoadRecord).points[0].asked.level == 20
    html = page.render([kinds.section(content)])
    assert f"an open loop by the ramp {ramp}" in html


def test_a_ramp_of_requests_in_flight_never_exceeds_its_level(run):
    content, printed = run("--ramp-concurrency", "1:3:1.2s", "--processes", 1)
    points = content["points"]
    assert [point["asked"]["concurrency"] for point in points] == [1, 2, 3]
    for point in points:
        # Where a part begins, the slots of the next one may already have.
        assert 0 < point["concurrency"] < point["asked"]["concurrency"] + 1
        assert point["errors"] == {}
    assert points[-1]["concurrency"] > points[0]["concurrency"]
    assert "closed ramp 3" in printed


def test_an_export_has_the_samples_of_every_point_and_the_requests_around_them(run, tmp_path):
    path = tmp_path / "new folder" / "requests.csv"
    content, _ = run("--concurrency", 2, "--rate", 100, "--export", path, "--processes", 2)
    lines = exported(path)
    for number, point in enumerate(content["points"]):
        own = [line for line in lines if line["point"] == str(number)]
        measured = [line for line in own if line["phase"] == "measured"]
        assert len(measured) == point["latency_ns"]["samples"]
        longest_ns = max(int(line["latency_ns"]) for line in measured)
        assert longest_ns == pytest.approx(point["latency_ns"]["max"], rel=0.001)
        mean_ns = sum(int(line["latency_ns"]) for line in measured) / len(measured)
        assert mean_ns == pytest.approx(point["latency_ns"]["mean"])
        assert {line["process"] for line in measured} == {"0", "1"}
        assert {line["loop"] for line in own} == {point["asked"]["loop"]}
        assert any(line["phase"] == "warm-up" for line in own)
    # What the processes kept is gone.
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_an_export_as_parquet_has_types_and_nulls(run, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra [parquet]")
    path = tmp_path / "requests.parquet"
    content, _ = run("--rate", 50, "--export", path)
    table = parquet.read_table(path)
    assert table.column_names == list(COLUMNS)
    assert str(table.schema.field("latency_ns").type) == "int64"
    phases = table.column("phase").to_pylist()
    (point,) = content["points"]
    assert phases.count("measured") == point["latency_ns"]["samples"]
    assert set(table.column("status").to_pylist()) == {"OK"}


def test_requests_that_fail_are_exported_with_their_status(
    run, tmp_path, server, launch, monkeypatch
):
    path = tmp_path / "requests.csv"
    mortal = launch(server.models, "--log-level", "warning")

    def kill(self, step):
        if step.window is not None:
            mortal.stop(signal.SIGKILL)

    monkeypatch.setattr(LoadProgress, "__call__", kill)
    options = ["--address", mortal.address, "--rate", 100, "--max-windows", 100]
    content, _ = run(*options, "--export", path, status=1)
    (point,) = content["points"]
    counted = [line for line in exported(path) if line["phase"] != "warm-up"]
    failed = Counter(line["status"] for line in counted)
    answered = failed.pop("OK")
    assert failed == point["errors"]
    assert failed["UNAVAILABLE"] > 0
    assert answered >= point["latency_ns"]["samples"] > 0


def test_a_server_that_was_started_here_is_observed_by_its_process(tmp_path, capsys):
    words = ["load", "--features", FEATURES, *SHORT, "--concurrency", 2, "--out", tmp_path]
    assert main([str(word) for word in words]) == 0
    (point,) = json.loads((tmp_path / "load.json").read_text())["points"]
    used = point["server"]
    assert (used["source"], used["refused"]) == ("process", None)
    assert used["cores"] == pytest.approx(used["cpu_s"] / used["seconds"])
    assert used["rss_bytes"] > 2**20
    assert used["answered"] > 0
    assert 1 <= used["batch_rows"] <= 2
    with (tmp_path / "load.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert float(row["server_cpu_s"]) == used["cpu_s"]
    assert int(row["server_rss_bytes"]) == used["rss_bytes"]
    assert "The server" not in row
    assert "refused" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--ramp", "1:2:30", "--rate", "5"], "got --ramp and --rate, expected --ramp alone"),
        (["--ramp", "1:2:30", "--ramp-concurrency", "1:2:3"], "expected --ramp alone"),
        (["--ramp", "1:2"], "argument --ramp: got '1:2', expected FROM:TO:SECONDS"),
        (["--ramp-concurrency", "1:4:9", "--processes", "2"], "below --processes 2"),
        (["--schedule", "gone.csv"], "gone.csv: No such file"),
        (["--schedule", "gone.csv", "--aa", "20"], "expected --schedule alone"),
        (["--rate", "5", "--speed", "2"], "got --speed without --schedule"),
        (["--rate", "5", "--goodput-ms", "0"], "expected a number over 0"),
        (["--rate", "5", "--server-metrics", "http://a/"], "without --address"),
        (["--rate", "5", "--export", "a.txt"], "got '.txt', expected .csv or .parquet"),
        (["--rate", "5", "--aa", "20", "--export", "a.csv"], "got --aa with --export"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path, monkeypatch, capsys, words, text):
    monkeypatch.chdir(tmp_path)
    assert main(["load", *words]) == 2
    assert text in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
