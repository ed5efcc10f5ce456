"""Loads of real servers: closed and open loops, stalls, failures, servers of other makers."""

import csv
import json
import signal
import subprocess
import sys
import time
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import onnx
import pytest

from client.__main__ import main
from client.histogram import Histogram
from model.export import export
from model.weights import from_seed
from protos import inference_pb2 as pb

ROOT = Path(__file__).parents[1]
SERVICE = "/inference.GRPCInferenceService/"
CLASSES, FEATURES = 8, 64
SHORT = ["--warm-up", "0.3", "--window", "0.3", "--max-windows", "3", "--classes", CLASSES]
STALL_S = 1.0
CHECKS = {"errors", "little", "stable", "steal"}


@pytest.fixture(scope="module")
def models(graphs):
    export(graphs.folder, "linear_argmax", from_seed(CLASSES, FEATURES, 0), "float32", 0)
    return graphs.folder


@pytest.fixture(scope="module")
def address(launch_for_module, models):
    return launch_for_module(models, "--log-level", "warning").address


def command(name, out, options):
    words = [sys.executable, "-m", "client", name, "--out", out, *options]
    return [str(word) for word in words]


def run(name, out, *options, status=0):
    """Run a command; its record and what it printed."""
    done = subprocess.run(
        command(name, out, options),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stderr) == (status, ""), done.stdout
    return json.loads((out / f"{name}.json").read_text()), done.stdout


@contextmanager
def running(name, out, *options):
    """Run a command while the block runs; a function that waits for its exit code and record."""
    process = subprocess.Popen(
        command(name, out, options),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )

    def ended():
        said = process.communicate(timeout=60)
        assert said[1] == "", said
        return process.returncode, json.loads((out / f"{name}.json").read_text())

    try:
        yield ended
    finally:
        process.kill()
        process.communicate()


def latency(point):
    return Histogram.decode(point["latency_histogram"])


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
        asked = point["asked"]["concurrency"] or point["concurrency"]
        assert told == pytest.approx(asked, rel=0.05)
    for name, fewest in (("p50", 7), ("p90", 44), ("p95", 90), ("p99", 459), ("p99_9", 4603)):
        assert (point["latency_ns"][name] is None) == (samples < fewest)


def test_a_load_of_a_server_of_its_own_measures_every_mode_in_both_loops(tmp_path):
    options = ["--features", FEATURES, "--threads", 1, "--rows", 2, "--modes", "unary,stream,shm"]
    content, printed = run(
        "load", tmp_path, *SHORT, *options, "--concurrency", "1,3", "--rate", "60"
    )
    assert content["schema"] == "argmax-serving/load/1"
    assert content["unchecked_because"] is None
    assert content["environment"]["versions"]["grpcio"]
    asked = [(p["asked"]["mode"], p["asked"]["loop"]) for p in content["points"]]
    loops = ["closed", "closed", "open"]
    assert asked == [(mode, loop) for mode in ("unary", "stream", "shm") for loop in loops]
    for point in content["points"]:
        check_numbers(point)
        assert (point["errors"], point["wrong_labels"]) == ({}, 0)
        assert point["split"]["compute_ns"] > 0
        assert len(point["windows"]) == 3
        assert point["concurrency"] <= (point["asked"]["concurrency"] or np.inf) * 1.01
    # A closed loop is called one, wherever it is told of.
    assert set(content["loops"]) == {"closed", "open"}
    for text in ("closed 1", "closed 3", "open 60/s", "closed loop: each request waits"):
        assert text in printed
    with (tmp_path / "load.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["loop"] for row in rows] == loops * 3
    assert [row["asked_concurrency"] for row in rows] == ["1", "3", ""] * 3
    assert [row["asked_rate_per_s"] for row in rows] == ["", "", "60.0"] * 3
    assert [int(row["latency_samples"]) for row in rows] == [
        point["latency_ns"]["samples"] for point in content["points"]
    ]
    for name in ("load-closed-loop.png", "load-open-loop.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
        assert str(tmp_path / name) in printed


def test_processes_share_a_load(tmp_path, address):
    content, _ = run(
        "load",
        tmp_path,
        *SHORT,
        "--address",
        address,
        "--processes",
        2,
        "--concurrency",
        8,
        "--rate",
        80,
        "--arrivals",
        "constant",
    )
    closed, opened = content["points"]
    for point in (closed, opened):
        check_numbers(point)
        assert (point["errors"], point["wrong_labels"]) == ({}, 0)
    # Of one process alone it would be 4 at most.
    assert 4 < closed["concurrency"] < 8.1
    # All that is due comes, each process its half.
    assert opened["due_per_s"] == pytest.approx(80, rel=0.05)


def test_windows_hold_so_many_requests(tmp_path, address):
    content, _ = run(
        "load",
        tmp_path,
        *SHORT,
        "--address",
        address,
        "--rate",
        100,
        "--window",
        0.1,
        "--window-requests",
        60,
    )
    (point,) = content["points"]
    for window in point["windows"]:
        assert window["rate_per_s"] > 0
    assert point["latency_ns"]["samples"] >= 3 * 60


def stalled(tmp_path, launch, models, call, eventually, *options):
    """Load a server that stalls once, for a second, in the middle of what is measured."""
    server = launch(models, "--log-level", "warning")
    caller = call(server.address)
    with running(
        "load",
        tmp_path,
        "--address",
        server.address,
        "--warm-up",
        0.5,
        "--window",
        1,
        "--max-windows",
        4,
        "--classes",
        CLASSES,
        *options,
    ) as ended:
        counted = lambda: caller.statistics("linear_argmax").inference_count  # noqa: E731
        eventually(lambda: counted() > 150, "the load is being measured")
        server.popen.send_signal(signal.SIGSTOP)
        try:
            time.sleep(STALL_S)  # what is injected, not waited for
        finally:
            server.popen.send_signal(signal.SIGCONT)
        status, content = ended()
    assert status == 0
    (point,) = content["points"]
    check_numbers(point)
    return point


def test_an_open_loop_shows_a_stall_in_its_percentiles(tmp_path, launch, models, call, eventually):
    rate = 150
    point = stalled(
        tmp_path, launch, models, call, eventually, "--rate", rate, "--arrivals", "constant"
    )
    # Who came in the first half of the stall waited for more than half of it.
    slow = latency(point).count_over(int(STALL_S / 2 * 1e9))
    assert slow >= 0.9 * rate * STALL_S / 2
    assert point["latency_ns"]["max"] >= 0.9 * STALL_S * 1e9
    # They are a tenth of all, so that nine tenths of the percentiles hide and p99 shows them.
    assert point["latency_ns"]["p99"] >= STALL_S / 2 * 1e9
    assert not point["valid"]


def test_a_closed_loop_hides_a_stall(tmp_path, launch, models, call, eventually):
    concurrency = 2
    point = stalled(tmp_path, launch, models, call, eventually, "--concurrency", concurrency)
    # Those that were under way, and no more: nobody else asked meanwhile.
    assert 1 <= latency(point).count_over(int(STALL_S / 2 * 1e9)) <= concurrency
    assert point["asked"]["loop"] == "closed"


@pytest.mark.parametrize("mode", ["unary", "stream"])
@pytest.mark.parametrize("load", [("--rate", 200), ("--concurrency", 2)], ids=["open", "closed"])
def test_a_server_that_dies_ends_the_load_with_its_errors(
    tmp_path, launch, models, call, eventually, load, mode
):
    server = launch(models, "--log-level", "warning")
    caller = call(server.address)
    with running(
        "load",
        tmp_path,
        "--address",
        server.address,
        "--warm-up",
        0.3,
        "--window",
        0.5,
        "--max-windows",
        100,
        "--modes",
        f"{mode},shm",
        "--classes",
        CLASSES,
        *load,
    ) as ended:
        counted = lambda: caller.statistics("linear_argmax").inference_count  # noqa: E731
        eventually(lambda: counted() > 120, "the load is being measured")
        server.stop(signal.SIGKILL)
        status, content = ended()
    assert status == 1
    # Nothing more is tried, and what was measured is kept.
    (point,) = content["points"]
    assert point["asked"]["mode"] == mode
    assert set(point["errors"]) == {"UNAVAILABLE"}
    assert not point["valid"]
    # What was answered is not mixed with what was not.
    assert latency(point).samples == point["latency_ns"]["samples"]


@pytest.mark.parametrize("mode", ["unary", "stream"])
def test_a_server_that_hangs_is_not_waited_for_without_end(
    tmp_path, launch, models, call, eventually, mode
):
    server = launch(models, "--log-level", "warning")
    caller = call(server.address)
    with running(
        "load",
        tmp_path,
        "--address",
        server.address,
        "--warm-up",
        0.3,
        "--window",
        0.5,
        "--max-windows",
        4,
        "--timeout",
        1,
        "--modes",
        mode,
        "--classes",
        CLASSES,
        "--concurrency",
        2,
    ) as ended:
        counted = lambda: caller.statistics("linear_argmax").inference_count  # noqa: E731
        eventually(lambda: counted() > 50, "the load is under way")
        server.popen.send_signal(signal.SIGSTOP)
        try:
            status, content = ended()
        finally:
            server.popen.send_signal(signal.SIGCONT)
    assert status == 1
    (point,) = content["points"]
    assert point["errors"]["DEADLINE_EXCEEDED"] >= 2
    assert not point["valid"]


@pytest.fixture
def foreign(address):
    """A plain server of the protocol: it knows no timings, and tells no configuration."""
    channel = grpc.insecure_channel(address)

    class Relay(grpc.GenericRpcHandler):
        def service(self, details):
            if details.method.endswith(("ModelConfig", "ModelStreamInfer")):
                return None

            def forward(message, context):
                if details.method.endswith("ModelInfer"):
                    request = pb.ModelInferRequest.FromString(message)
                    request.parameters.clear()
                    message = request.SerializeToString()
                return channel.unary_unary(details.method)(message, timeout=10)

            return grpc.unary_unary_rpc_method_handler(forward)

    with futures.ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool)
        server.add_generic_rpc_handlers((Relay(),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(None).wait()
    channel.close()


def test_a_plain_server_of_the_protocol_is_loaded_without_split_and_without_labels(
    tmp_path, foreign
):
    content, printed = run("load", tmp_path, *SHORT, "--address", foreign, "--concurrency", 2)
    (point,) = content["points"]
    check_numbers(point)
    assert (point["split"], point["wrong_labels"], point["errors"]) == (None, None, {})
    assert "does not tell the weights" in content["unchecked_because"]
    assert "the server tells no timings" in printed
    assert "labels are unchecked" in printed


def test_another_seed_leaves_labels_unchecked(tmp_path, address):
    content, _ = run(
        "load", tmp_path, *SHORT, "--address", address, "--concurrency", 1, "--seed", 5
    )
    assert "--seed 5" in content["unchecked_because"]
    assert content["points"][0]["wrong_labels"] is None


def test_wrong_labels_are_found_under_load(tmp_path, launch, models):
    folder = tmp_path / "models" / "linear_argmax" / "1"
    folder.mkdir(parents=True)
    graph = onnx.load(models / "linear_argmax" / "1" / "model.onnx")
    (weights,) = [w for w in graph.graph.initializer if list(w.dims) == [FEATURES, CLASSES]]
    turned = onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(weights), weights.name)
    weights.CopyFrom(turned)
    onnx.save(graph, folder / "model.onnx")
    server = launch(tmp_path / "models", "--log-level", "warning")
    content, printed = run(
        "load", tmp_path, *SHORT, "--address", server.address, "--concurrency", 1, status=1
    )
    (point,) = content["points"]
    assert point["wrong_labels"] > 0
    assert not point["valid"]
    assert "wrong labels" in printed


def test_slo_finds_a_rate_that_meets_the_bound(tmp_path, address):
    content, printed = run(
        "slo",
        tmp_path,
        "--address",
        address,
        "--p99-ms",
        20_000,
        "--start",
        100,
        "--most",
        200,
        "--max-windows",
        3,
        "--window",
        0.3,
        "--warm-up",
        0.3,
        "--classes",
        CLASSES,
        "--arrivals",
        "constant",
    )
    assert content["found"] == {"met": 200.0, "missed": None, "untold": None}
    assert [trial["met"] for trial in content["trials"]] == [True, True]
    for point in content["points"]:
        check_numbers(point)
        assert point["latency_ns"]["samples"] >= 459
    assert "p99 <= 20000 ms: 200 requests/s, the most that was tried" in printed


def test_slo_says_that_no_rate_meets_a_bound_that_none_can(tmp_path, address):
    content, printed = run(
        "slo",
        tmp_path,
        "--address",
        address,
        "--p99-ms",
        0.001,
        "--start",
        2000,
        "--window",
        0.1,
        "--warm-up",
        0.1,
        "--classes",
        CLASSES,
        "--max-windows",
        3,
        status=1,
    )
    assert content["found"]["met"] is None
    assert content["answer"] in printed.replace("\n", " ")
    assert all(trial["met"] is not True for trial in content["trials"])


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["load"], "neither --concurrency nor --rate came"),
        (["load", "--concurrency", "0"], "wanted an integer of at least 1"),
        (["load", "--rate", "5:1:1"], "wanted START:STOP:STEP"),
        (["load", "--rate", "5", "--modes", "local"], "wanted some of unary,stream,shm"),
        (["load", "--concurrency", "1", "--processes", "2"], "less than --processes 2"),
        (["slo"], "--p99-ms"),
        (["slo", "--p99-ms", "0"], "wanted a number over 0"),
        (["slo", "--p99-ms", "5", "--mode", "unary,stream"], "wanted one of"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path, monkeypatch, capsys, words, text):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert text in capsys.readouterr().err


def test_a_request_that_the_model_refuses_is_one_line(tmp_path, address, capsys):
    words = ["load", "--address", address, "--concurrency", "1", "--rows", "2000"]
    assert main([*words, "--classes", str(CLASSES), "--out", str(tmp_path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "INVALID_ARGUMENT" in line
