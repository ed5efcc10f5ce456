"""Loads of real servers: closed and open loops, stalls, failures, servers of other makers."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from concurrent import futures

import grpc
import numpy as np
import onnx
import pytest

from client.version import client_name
from measure.__main__ import main
from measure.engine.histogram import Histogram
from measure.engine.processes import SENDER_NICE
from measure.slo.elimination import Race
from model.export import export
from model.weights import from_seed
from protos import inference_pb2 as pb

SERVICE = "/inference.GRPCInferenceService/"
CLASSES, FEATURES = 8, 64
SHORT = ["--warm-up-s", 0.1, "--window-s", 0.15, "--max-windows", 3, "--classes", CLASSES]
STALL_S, CONFIDENCE = 1.0, 0.5
CHECKS = {"errors", "little", "stable", "steal"}
INSIDE = ("decode", "queue", "assemble", "compute", "handover", "encode")


@pytest.fixture(scope="module")
def models(graphs):
    export(graphs.folder, "linear_argmax", from_seed(CLASSES, FEATURES, 0), "float32", 0)
    return graphs.folder


@pytest.fixture(scope="module")
def server(launch_for_module, models):
    return launch_for_module(models, "--log-level", "warning")


@pytest.fixture
def address(server):
    return server.address


@pytest.fixture(scope="module")
def may_go_first():
    """Whether the system lets this process raise the priority of one that it started."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        try:
            os.setpriority(os.PRIO_PROCESS, process.pid, SENDER_NICE)
        except PermissionError:
            return False
        finally:
            process.kill()
    return True


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    """Run a command; its record and what it printed."""
    # A p99 of 69 samples is worth little, and takes a busy machine less than a second.
    monkeypatch.setattr("measure.core.confidence.CONFIDENCE", CONFIDENCE)

    def run_command(name, *options, status=0, record=None):
        words = [str(word) for word in (name, "--out", tmp_path, *options)]
        code = main(words)
        printed, progress = capsys.readouterr()
        assert "error" not in progress.replace(" errors", "")
        assert status in (code, None), printed
        return json.loads((tmp_path / f"{record or name}.json").read_text()), printed

    return run_command


def wait_for_requests(caller, number, eventually):
    """Wait until a load has sent so many."""
    counted = lambda: caller.statistics("linear_argmax").inference_count  # noqa: E731
    before = counted()
    eventually(lambda: counted() > before + number, "the load is under way")


def latency(point):
    return Histogram.decode(point["latency_histogram"])


def longer_than(point, seconds):
    """How many requests took longer."""
    times_ns, counts = latency(point).counts()
    return sum(
        count for time_ns, count in zip(times_ns, counts, strict=True) if time_ns > seconds * 1e9
    )


def check_numbers(point):
    """What must be so of any point: one population, and Little's law where it is called valid."""
    samples = point["latency_ns"]["samples"]
    assert latency(point).samples == samples > 0
    assert point["requests_per_s"] == pytest.approx(samples / point["elapsed_ns"] * 1e9)
    assert point["rows_per_s"] == pytest.approx(point["requests_per_s"] * point["asked"]["rows"])
    assert {check["name"] for check in point["checks"]} >= CHECKS
    assert point["valid"] == all(check["passed"] is not False for check in point["checks"])
    if point["valid"]:
        told = point["requests_per_s"] * point["latency_ns"]["mean"] / 1e9
        if point["asked"]["loop"] == "closed":
            told += point["requests_per_s"] * point["split"]["send_lag_ns"] / 1e9
        asked = point["asked"]["concurrency"] or point["concurrency"]
        most = max(0.05, told / point["requests_per_s"] / point["elapsed_ns"] * 1e9)
        assert told == pytest.approx(asked, rel=most)
        assert point["client_share"] < 0.1 or point["asked"]["loop"] == "open"
    # Of the same requests as the latency, and without the client's lateness.
    assert point["from_send_ns"]["samples"] == samples
    assert point["from_send_ns"]["mean"] <= point["latency_ns"]["mean"]
    if point["asked"]["loop"] == "closed":
        assert point["from_send_ns"] == point["latency_ns"]
    for name, fewest in (("p50", 1), ("p90", 7), ("p95", 14), ("p99", 69), ("p99_9", 693)):
        assert (point["latency_ns"][name] is None) == (samples < fewest)


def test_a_load_of_a_server_of_its_own_measures_every_mode_in_both_loops(tmp_path, run):
    options = ["--features", FEATURES, "--threads", 1, "--rows", 2, "--modes", "unary,stream,shm"]
    content, printed = run("load", *SHORT, *options, "--concurrency", "3", "--rate", "60")
    assert content["schema"] == "argmax-serving/load/1"
    assert content["unchecked_because"] is None
    assert content["environment"]["versions"]["grpcio"]
    assert content["client"] == client_name()
    assert content["client"].startswith("argmax-serving/")
    asked = [(p["asked"]["mode"], p["asked"]["loop"]) for p in content["points"]]
    loops = ["closed", "open"]
    assert asked == [(mode, loop) for mode in ("unary", "stream", "shm") for loop in loops]
    for point in content["points"]:
        check_numbers(point)
        assert (point["errors"], point["wrong_labels"]) == ({}, 0)
        assert point["split"]["told_by"] == "timings"
        for part in ("send_ns", "network_ns", "queue_ns", "compute_ns", "receive_ns"):
            assert point["split"][part] > 0
        for part in ("server_receive_ns", "server_send_ns", "handover_ns", "answer_receive_ns"):
            assert point["split"][part] > 0
        split = point["split"]
        there = max(split["send_ns"], split["server_receive_ns"])
        back = max(split["server_send_ns"], split["answer_receive_ns"])
        inside = sum(split[f"{name}_ns"] for name in INSIDE)
        # A bar of the report is as long as the round trip.
        total = there + split["network_ns"] + inside + back
        # The statistics cover a few requests more, so all that is named may be more than that.
        round_trip_ns = point["from_send_ns"]["mean"]
        assert total >= round_trip_ns * (1 - 1e-6)
        assert not split["network_ns"] or total == pytest.approx(round_trip_ns, rel=1e-6)
        assert len(point["windows"]) == 3
        assert point["concurrency"] <= (point["asked"]["concurrency"] or np.inf) * 1.01
    # A closed loop is called one, wherever it is told of.
    assert set(content["loops"]) == {"closed", "open"}
    for text in ("closed 3", "open 60/s", "closed loop: each request waits"):
        assert text in printed
    with (tmp_path / "load.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["loop"] for row in rows] == loops * 3
    assert [row["asked_concurrency"] for row in rows] == ["3", ""] * 3
    assert [row["asked_rate_per_s"] for row in rows] == ["", "60.0"] * 3
    assert [int(row["latency_samples"]) for row in rows] == [
        point["latency_ns"]["samples"] for point in content["points"]
    ]
    for name in ("load-closed-loop.png", "load-open-loop.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
        assert str(tmp_path / name) in printed


def test_a_load_over_grpcio_says_that_receiving_is_not_timed(serve, models, run):
    address = serve(models, transport="grpcio").address
    content, printed = run("load", *SHORT, "--address", address, "--concurrency", 2)
    split = content["points"][0]["split"]
    assert (split["server_receive_ns"], split["server_send_ns"]) == (None, None)
    assert split["handover_ns"] > 0
    assert "reports no time for receiving" in " ".join(printed.split())


def test_processes_share_a_load(run, address):
    load = ["--processes", 2, "--concurrency", 8, "--rate", 80, "--arrivals", "constant"]
    content, _ = run("load", *SHORT, "--window-s", 0.4, "--address", address, *load)
    closed, opened = content["points"]
    for point in (closed, opened):
        check_numbers(point)
        assert (point["errors"], point["wrong_labels"]) == ({}, 0)
    # Of one process alone it would be 4 at most.
    assert 4 < closed["concurrency"] < 8.1
    # All that is due comes, each process its half.
    assert opened["due_per_s"] == pytest.approx(80, rel=0.25)


def test_senders_go_first_where_the_system_allows_it(run, address, may_go_first):
    content, _ = run("load", "--address", address, *SHORT, "--concurrency", 1)
    wanted = SENDER_NICE if may_go_first else os.getpriority(os.PRIO_PROCESS, 0)
    assert content["points"][0]["sender_nice"] == wanted


def test_windows_hold_so_many_requests(run, address):
    load = ["--rate", 200, "--window-s", 0.1, "--window-requests", 40, "--seed", 5]
    content, _ = run("load", *SHORT, "--address", address, *load)
    (point,) = content["points"]
    for window in point["windows"]:
        assert window["rate_per_s"] > 0
    assert point["latency_ns"]["samples"] >= 3 * 40
    # Another seed makes other weights, and leaves labels unchecked.
    assert "--seed 5" in content["unchecked_because"]
    assert point["wrong_labels"] is None


@pytest.fixture
def run_while(run, call, eventually):
    """Run a load of a server, and do something to the server while requests are under way."""

    def run_load(server, requests, interfere, *options, status=0):
        caller = call(server.address)

        def meanwhile():
            wait_for_requests(caller, requests, eventually)
            interfere()

        with futures.ThreadPoolExecutor(1) as pool:
            interfered = pool.submit(meanwhile)
            words = ["--address", server.address, "--classes", CLASSES, *options]
            content, _ = run("load", *words, status=status)
            interfered.result()
        (point,) = content["points"]
        return point

    return run_load


@pytest.fixture
def stalled(server, run_while):
    """Load a server that stalls once, for a second, while it is measured; the point."""

    def stall():
        server.popen.send_signal(signal.SIGSTOP)
        try:
            time.sleep(STALL_S)  # what is injected, not waited for
        finally:
            server.popen.send_signal(signal.SIGCONT)

    def load(*options):
        windows = ["--warm-up-s", 0.4, "--window-s", 0.5, "--max-windows", 5]
        point = run_while(server, 100, stall, *windows, *options)
        check_numbers(point)
        return point

    return load


def test_an_open_loop_shows_a_stall_in_its_percentiles(stalled):
    rate = 200
    point = stalled("--rate", rate, "--arrivals", "constant")
    # Who came in the first half of the stall waited for more than half of it; of those, a busy
    # machine may not get to send all before the end.
    slow = longer_than(point, STALL_S / 2)
    assert slow >= 0.3 * rate * STALL_S / 2
    assert point["latency_ns"]["max"] >= 0.9 * STALL_S * 1e9
    # They are more than one in a hundred, so p99 shows them.
    assert point["latency_ns"]["p99"] >= STALL_S / 2 * 1e9
    assert not point["valid"]


@pytest.mark.slow
def test_a_closed_loop_hides_a_stall(stalled):
    concurrency = 2
    point = stalled("--concurrency", concurrency)
    # Those that were under way, and no more: nobody else asked meanwhile.
    assert 1 <= longer_than(point, STALL_S / 2) <= concurrency
    assert point["asked"]["loop"] == "closed"


@pytest.mark.parametrize(
    ("mode", "load"),
    [
        pytest.param("unary", ("--rate", 200), marks=pytest.mark.slow),
        ("stream", ("--concurrency", 2)),
    ],
)
def test_a_server_that_dies_ends_the_load_with_its_errors(launch, models, run_while, mode, load):
    server = launch(models, "--log-level", "warning")
    windows = ["--warm-up-s", 0.1, "--window-s", 0.2, "--max-windows", 100]
    # Nothing more is tried, and what was measured is kept.
    words = [*windows, "--modes", f"{mode},shm", *load]
    point = run_while(server, 100, lambda: server.stop(signal.SIGKILL), *words, status=1)
    assert point["asked"]["mode"] == mode
    assert set(point["errors"]) == {"UNAVAILABLE"}
    assert not point["valid"]
    # What was answered is not mixed with what was not.
    assert latency(point).samples == point["latency_ns"]["samples"]


@pytest.mark.parametrize("mode", ["unary", pytest.param("stream", marks=pytest.mark.slow)])
def test_a_server_that_hangs_is_not_waited_for_without_end(server, run_while, mode):
    windows = ["--warm-up-s", 0.1, "--window-s", 0.2, "--max-windows", 3, "--timeout-s", 0.5]
    words = [*windows, "--modes", mode, "--concurrency", 2]
    try:
        point = run_while(
            server, 50, lambda: server.popen.send_signal(signal.SIGSTOP), *words, status=1
        )
    finally:
        server.popen.send_signal(signal.SIGCONT)
    assert point["errors"]["DEADLINE_EXCEEDED"] >= 2
    assert not point["valid"]


@pytest.fixture
def foreign(address):
    """Start a plain server of the protocol: no timings, no configuration, and not all calls."""
    channel = grpc.insecure_channel(address)
    missing = {"ModelConfig", "ModelStreamInfer"}
    wanted = set()

    class Relay(grpc.GenericRpcHandler):
        def service(self, details):
            if details.method.rpartition("/")[2] in missing:
                return None
            if not wanted <= set(details.invocation_metadata):
                return None

            def forward(message, context):
                if details.method.endswith("ModelInfer"):
                    request = pb.ModelInferRequest.FromString(message)
                    request.parameters.clear()
                    message = request.SerializeToString()
                return channel.unary_unary(details.method)(message, timeout=10)

            return grpc.unary_unary_rpc_method_handler(forward)

    def start(*without, token=None):
        missing.update(without)
        if token is not None:
            wanted.add(("authorization", f"Bearer {token}"))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        return f"127.0.0.1:{port}"

    with futures.ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool)
        server.add_generic_rpc_handlers((Relay(),))
        yield start
        server.stop(None).wait()
    channel.close()


def test_a_plain_server_of_the_protocol_is_loaded_without_its_split_and_without_labels(
    run, foreign
):
    where = ["--address", foreign("ModelStatistics")]
    content, printed = run("load", *SHORT, *where, "--concurrency", 2)
    (point,) = content["points"]
    check_numbers(point)
    assert (point["wrong_labels"], point["errors"]) == (None, {})
    assert (point["split"]["told_by"], point["split"]["compute_ns"]) == (None, None)
    assert point["split"]["network_ns"] > 0
    assert "does not report the weights" in content["unchecked_because"]
    assert "the server reports no timings" in printed
    assert "labels are unchecked" in printed


def test_statistics_split_the_time_of_a_server_without_timings(run, foreign, tmp_path):
    token = tmp_path / "token"
    token.write_text("asked-of-every-call")
    where = ["--address", foreign(token="asked-of-every-call"), "--token-file", token]
    content, printed = run("load", *SHORT, *where, "--concurrency", 2)
    split = content["points"][0]["split"]
    assert split["told_by"] == "statistics"
    assert split["decode_ns"] is None
    for part in ("send_ns", "network_ns", "queue_ns", "assemble_ns", "compute_ns", "encode_ns"):
        assert split[part] > 0
    assert 1 <= split["batch_rows"] <= 2
    assert "the server's times come from ModelStatistics" in printed


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(
            ("load", *SHORT, "--concurrency", 1, "--modes", "unary,stream"), marks=pytest.mark.slow
        ),
        (
            *("sweep", "--modes", "unary,stream", "--batch-sizes", "1,4", "--examples", 16),
            *("--classes", CLASSES, "--features", FEATURES),
        ),
    ],
    ids=["load", "sweep"],
)
def test_labels_with_an_axis_of_one_are_read_as_others_are(tmp_path, launch, models, run, words):
    folder = tmp_path / "models" / "linear_argmax" / "1"
    folder.mkdir(parents=True)
    graph = onnx.load(models / "linear_argmax" / "1" / "model.onnx")
    (argmax,) = [node for node in graph.graph.node if node.op_type == "ArgMax"]
    (keeps,) = [one for one in argmax.attribute if one.name == "keepdims"]
    keeps.i = 1
    (label,) = [output for output in graph.graph.output if output.name == "label"]
    label.type.tensor_type.shape.dim.add(dim_value=1)
    onnx.save(graph, folder / "model.onnx")
    server = launch(tmp_path / "models", "--log-level", "warning")
    content, _ = run(*words, "--address", server.address)
    for point in content["points"]:
        assert point["wrong_labels"] == 0
        assert not point["errors"]


def test_wrong_labels_are_found_under_load(tmp_path, launch, models, run):
    folder = tmp_path / "models" / "linear_argmax" / "1"
    folder.mkdir(parents=True)
    graph = onnx.load(models / "linear_argmax" / "1" / "model.onnx")
    (weights,) = [w for w in graph.graph.initializer if list(w.dims) == [FEATURES, CLASSES]]
    turned = onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(weights), weights.name)
    weights.CopyFrom(turned)
    onnx.save(graph, folder / "model.onnx")
    server = launch(tmp_path / "models", "--log-level", "warning")
    content, printed = run(
        "load", *SHORT, "--address", server.address, "--concurrency", 1, status=1
    )
    (point,) = content["points"]
    assert point["wrong_labels"] > 0
    assert not point["valid"]
    assert "wrong labels" in printed


def test_slo_finds_a_rate_that_meets_the_bound(run, address):
    options = ["--start", 50, "--most", 100, "--arrivals", "constant", *SHORT]
    content, printed = run("slo", "--address", address, "--p99-ms", 20_000, *options)
    assert content["found"] == {"met": 100.0, "missed": None, "untold": None}
    # A busy machine may leave an earlier trial untold.
    assert content["trials"][-1]["met"] is True
    for point in content["points"]:
        check_numbers(point)
    assert content["points"][-1]["latency_ns"]["samples"] >= 69
    assert "p99 <= 20000 ms: 100 requests/s, the most that was tried" in printed


def test_slo_says_that_no_rate_meets_a_bound_that_none_can(run, address, monkeypatch):
    monkeypatch.setattr("measure.engine.bisection._MOST_STEPS_DOWN", 1)
    options = ["--start", 200, *SHORT, "--window-s", 0.1]
    content, printed = run("slo", "--address", address, "--p99-ms", 0.001, *options, status=1)
    assert content["found"]["met"] is None
    assert content["answer"] in printed.replace("\n", " ")
    assert all(trial["met"] is not True for trial in content["trials"])


@pytest.mark.slow
def test_slo_tunes_servers_of_its_own_and_says_how_to_start_one(run, monkeypatch):
    def won_by_the_last(candidates, meets, start, *_):
        while not meets(candidates - 1, start):
            pass
        return Race((None,) * (candidates - 1) + (start,), ended=True)

    # Whoever wins on this machine today, the rest of the search must hold.
    monkeypatch.setattr("measure.slo.tune.race", won_by_the_last)
    delay_us = 20_000
    tuning = ["--tune", "--tune-group-rows", 512, "--tune-queue-delays-us", delay_us]
    tuning += ["--tune-option", "instances=2"]
    rates = ["--start", 150, "--most", 150, *SHORT, "--window-s", 0.1, "--features", FEATURES]
    budget = ["--p99-ms", 20_000, "--tune-pairs", 1]
    content, printed = run("slo", *budget, *rates, *tuning, status=None)
    tuned = content["tuning"]
    candidates = [(one["group_rows"], one["queue_delay_us"]) for one in tuned["candidates"]]
    assert candidates == [("auto", 0), ("512", delay_us)]
    options = [one["more_options"] for one in tuned["candidates"]]
    assert options == [[], ["--instances", "2"]]
    assert [one["met_per_s"] for one in tuned["candidates"]] == [None, 150.0]
    # Every candidate's options reached its server: half of its requests wait for half of that.
    (pair,) = tuned["against_defaults"]["pairs"]
    assert tuned["trials"][0]["latency_ns"]["p50"] >= delay_us * 1000 / 4
    assert pair["p50_ns"][1] >= delay_us * 1000 / 4
    # One pair claims nothing.
    assert tuned["server_options"] == ["--group-rows", "auto", "--queue-delay-us", "0"]
    assert "not significantly better" in tuned["answer"]
    assert tuned["answer"] in " ".join(printed.split())


@pytest.mark.slow
def test_a_load_against_itself_with_too_few_pairs_could_not_have_failed(run, address, monkeypatch):
    # As if pairs had been lost to errors: so few are refused beforehand.
    monkeypatch.setattr("measure.commands.load.fewest_pairs", lambda: 2)
    options = ["--aa", 1, "--pairs", 2, "--rate", 150, *SHORT, "--window-s", 0.1]
    content, printed = run("load", "--address", address, *options, record="load-aa", status=1)
    (found,) = content["runs"]
    assert (found["differs"], found["could_differ"], content["passed"]) == (False, False, False)
    assert "A/A: none of 1 runs could have failed: too few pairs" in printed
    assert len(found["pairs"]) == 2
    assert found["comparisons"]["p50"]["ratio"]["pairs"] == 2


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["load"], "got neither --concurrency nor --rate"),
        (["load", "--concurrency", "0"], "expected an integer of at least 1"),
        (["load", "--rate", "5:1:1"], "expected START:STOP:STEP"),
        (["load", "--rate", "5", "--modes", "local"], "expected some of unary,stream,shm"),
        (["load", "--concurrency", "1", "--processes", "2"], "less than --processes 2"),
        (["load", "--rate", "5", "--aa", "20", "--pairs", "9"], "--pairs 9, expected at least 10"),
        (["slo"], "--p99-ms"),
        (["slo", "--p99-ms", "0"], "expected a number over 0"),
        (["slo", "--p99-ms", "5", "--mode", "unary,stream"], "expected one of"),
        (["slo", "--p99-ms", "5", "--tune", "--address", "a:1"], "its own servers"),
        (["slo", "--p99-ms", "5", "--tune", "--tune-trials", "17"], "expected at least 18"),
        (
            [
                *("slo", "--p99-ms", "5", "--tune"),
                *("--tune-option", "instances=1,2", "--tune-trials", "35"),
            ],
            "--tune-trials 35 is too few for 18 candidates",
        ),
        (["slo", "--p99-ms", "5", "--tune-option", "instances=x"], "got 'x' for instances"),
        (["slo", "--p99-ms", "5", "--tune-group-rows", "0"], "expected an integer of at least 1"),
        (["slo", "--p99-ms", "5", "--tune-queue-delays-us", "-1"], "expected microseconds"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path, monkeypatch, capsys, words, text):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert text in capsys.readouterr().err


def test_a_request_that_the_model_refuses_is_one_line(tmp_path, address, capsys):
    words = ["load", "--address", address, "--concurrency", "1", "--rows", "2000"]
    assert main([*words, "--classes", str(CLASSES), "--out", str(tmp_path)]) == 1
    *_, line = capsys.readouterr().err.splitlines()
    assert "INVALID_ARGUMENT" in line
