import csv
import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import in_process
import numpy as np
import onnx
import pytest

from client.message_size import LEAST_BYTES
from measure.__main__ import main
from measure.core.record import read
from measure.report.sections.sweep import section
from measure.sweep import record
from model.examples import standard_normal
from model.export import export
from model.weights import from_seed

ROOT = Path(__file__).resolve().parents[2]
CLASSES, FEATURES, EXAMPLES = 64, 2048, 64
BATCH_SIZES = (1, 4, 16, 64)
SMALL = ["--features", FEATURES, "--examples", EXAMPLES, "--threads", 1]
SIZES = ["--batch-sizes", ",".join(map(str, BATCH_SIZES))]
FILES = {"sweep.json", "sweep.csv", "latency.png", "throughput.png", "report.html"}
SPREAD = {"min", "p50", "p90", "max", "samples"}
POINT = {
    "mode",
    "batch_size",
    "latency_ns",
    "first_prediction_ns",
    "throughput_per_s",
    "wrong_labels",
    "near_ties",
    "errors",
}


@pytest.fixture(scope="module")
def models(graphs):
    export(graphs.folder, "linear_argmax", from_seed(CLASSES, FEATURES, 0), "float32", 0)
    return graphs.folder


@pytest.fixture(scope="module")
def server(serve, models):
    return serve(models)


def run(*words):
    """Run the client as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "client", *map(str, words)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=100,
        check=False,
    )


@pytest.fixture
def complaint(capsys):
    """Run a command that must fail; the one line that it says."""

    def run_failing(*words, status=2):
        assert main([str(word) for word in words]) == status
        # What was begun before comes first.
        *_, line = capsys.readouterr().err.splitlines()
        assert line.startswith("argmax-client: error: ")
        return line

    return run_failing


def swept(folder, *options, status=0, as_process=False):
    """Run a sweep into a folder; its record."""
    words = ("sweep", "--out", folder, *SMALL, *options)
    done = run(*words) if as_process else in_process.run(main, *words)
    assert done.returncode == status, done.stderr
    assert {path.name for path in folder.iterdir()} >= FILES
    for name in FILES:
        assert str(folder / name) in done.stdout
    content = json.loads((folder / "sweep.json").read_text())
    # The terminal says what the page says.
    for verdict in section(content).verdicts:
        for text in (verdict.headline, *map(str, verdict.findings)):
            assert text in done.stdout
    return content


def check_points(content, modes, batch_sizes):
    points = content["points"]
    assert sorted((point["mode"], point["batch_size"]) for point in points) == sorted(
        (mode, size) for mode in modes for size in batch_sizes
    )
    for point in points:
        size = point["batch_size"]
        assert set(point) >= POINT
        for name in ("latency_ns", "first_prediction_ns"):
            spread = point[name]
            assert set(spread) == SPREAD
            assert 0 < spread["min"] <= spread["p50"] <= spread["p90"] <= spread["max"]
            assert spread["samples"] == max(3, EXAMPLES // size)
        assert point["first_prediction_ns"]["p50"] <= point["latency_ns"]["p50"]
        # Rows per second follow from the latencies, within what these can differ by.
        assert size * 1e9 / point["latency_ns"]["max"] <= point["throughput_per_s"] * 1.001
        assert point["throughput_per_s"] <= size * 1e9 / point["latency_ns"]["min"] * 1.001
        assert point["errors"] == 0


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
def test_a_sweep_of_a_server_of_its_own_writes_every_file_and_no_label_is_wrong(tmp_path, dtype):
    out = tmp_path / "new" / "folder"
    content = swept(out, *SIZES, "--dtype", dtype, as_process=True)
    assert {"schema", "environment", "settings", "points"} <= set(content)
    assert content["schema"] == "argmax-serving/sweep/1"
    assert content["environment"]["cores"] >= 1
    settings = content["settings"]
    assert (settings["dtype"], settings["features"], settings["address"]) == (
        dtype,
        FEATURES,
        None,
    )
    check_points(content, ("local", "unary", "stream"), BATCH_SIZES)
    assert sum(point["wrong_labels"] for point in content["points"]) == 0
    assert read(content, record.SweepRecord).points
    with (out / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["mode"], int(row["batch_size"])) for row in rows] == [
        (point["mode"], point["batch_size"]) for point in content["points"]
    ]
    for name in ("latency.png", "throughput.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG\r\n")
    html = (out / "report.html").read_text()
    assert html.lower().startswith("<!doctype html>")
    assert "</html>" in html


def test_a_sweep_of_a_server_that_is_there_measures_that_one(server, call, tmp_path):
    caller = call(server.address)
    before = caller.statistics("linear_argmax").inference_count
    options = ("--modes", "unary,stream", "--address", server.address)
    content = swept(tmp_path, *SIZES, *options)
    check_points(content, ("unary", "stream"), BATCH_SIZES)
    assert sum(point["wrong_labels"] for point in content["points"]) == 0
    assert content["settings"]["address"] == server.address
    # Each batch size has every example once, at least three batches, and one for the warm-up.
    rows = sum(max(3 * size, EXAMPLES) + size for size in BATCH_SIZES)
    assert caller.statistics("linear_argmax").inference_count - before == 2 * rows
    # It needs no model of its own.
    assert not (tmp_path / "models").exists()


def test_a_sweep_refuses_a_server_with_other_weights(serve, tmp_path, complaint):
    export(tmp_path / "m", "linear_argmax", from_seed(CLASSES, FEATURES, 7), "float32", 7)
    address = serve(tmp_path / "m").address
    options = ("--modes", "unary", "--address", address, "--out", tmp_path)
    assert "other weights" in complaint("sweep", *SMALL, *SIZES, *options)
    assert not (tmp_path / "sweep.json").exists()


def test_a_sweep_refuses_a_server_with_another_width(server, tmp_path, complaint):
    options = ("--modes", "unary", "--address", server.address, "--out", tmp_path)
    line = complaint("sweep", "--features", 99, *SIZES, *options)
    assert "2048" in line
    assert "--features" in line


def test_a_sweep_refuses_a_server_without_the_model(serve, graphs, tmp_path, complaint):
    export(tmp_path / "m", "other", from_seed(2, 3, 0), "float32")
    options = ("--modes", "stream", "--address", serve(tmp_path / "m").address, "--out", tmp_path)
    line = complaint("sweep", *SMALL, *SIZES, *options)
    assert "'linear_argmax'" in line


def test_a_sweep_counts_the_wrong_labels_of_weights_that_are_not_what_they_say(
    models, serve, tmp_path
):
    honest = models / "linear_argmax" / "1" / "model.onnx"
    model = onnx.load(honest)
    (stored,) = model.graph.initializer
    weights = onnx.numpy_helper.to_array(stored).copy()
    # The metadata still tell the hash of what was there before.
    weights[:, 0] = weights[:, 1]
    stored.CopyFrom(onnx.numpy_helper.from_array(weights, "W"))
    path = tmp_path / "m" / "linear_argmax" / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(model.SerializeToString())
    address = serve(tmp_path / "m").address
    out = tmp_path / "out"
    content = swept(
        out, "--batch-sizes", "16,64", "--modes", "unary,stream", "--address", address, status=1
    )
    x = standard_normal(EXAMPLES, FEATURES, 0, "float32").astype(np.float64)
    true = from_seed(CLASSES, FEATURES, 0).astype(np.float32).astype(np.float64)
    told = x @ weights.astype(np.float64)
    wrong = int((told.argmax(axis=1) != (x @ true.T).argmax(axis=1)).sum())
    assert wrong > 0
    for point in content["points"]:
        samples = point["latency_ns"]["samples"]
        times = samples * point["batch_size"] / EXAMPLES
        assert point["wrong_labels"] == pytest.approx(wrong * times)
    assert any("wrong labels" in finding["text"] for finding in content["findings"])


def test_a_batch_over_what_a_message_may_hold_is_streamed(serve, call, models, tmp_path):
    most = 4 * 2**20 + 2**18
    assert most < LEAST_BYTES
    server = serve(models, max_message_bytes=most)
    caller = call(server.address)
    fits, too_large = 256, 1024
    assert fits * FEATURES * 4 < most < too_large * FEATURES * 4
    options = ["--batch-sizes", f"{fits},{too_large}", "--examples", too_large, "--repeats", 1]
    content = swept(tmp_path, *options, "--modes", "unary", "--address", server.address)
    assert [(point["wrong_labels"], point["errors"]) for point in content["points"]] == [(0, 0)] * 2
    requests = caller.statistics("linear_argmax").inference_stats.success.count
    # One message a batch of what fits, several a batch of the other; a warm-up before each.
    messages = 2
    assert requests == (1 + too_large // fits) + (1 + 1) * messages


def unreachable():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def test_a_sweep_of_an_address_where_nobody_is_fails_with_one_line(
    tmp_path, complaint, monkeypatch
):
    monkeypatch.setattr("measure.sweep.sweep.READY_TIMEOUT_S", 0.3)
    address = unreachable()
    options = ("--modes", "unary", "--address", address, "--out", tmp_path)
    line = complaint("sweep", *SMALL, *SIZES, *options, status=1)
    assert address in line


def test_a_sweep_checks_that_its_folder_can_be_written_first(tmp_path, complaint):
    (tmp_path / "file").write_text("")
    line = complaint("sweep", *SMALL, *SIZES, "--out", tmp_path / "file" / "out")
    assert f"{tmp_path}/file" in line


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "COMMAND"),
        (["dance"], "dance"),
        (["sweep", "--batch-sizes", "0"], "--batch-sizes"),
        (["sweep", "--batch-sizes", "1,x"], "'x'"),
        (["sweep", "--batch-sizes", ""], "--batch-sizes"),
        (["sweep", "--modes", "warp"], "warp"),
        (["sweep", "--modes", "unary,unary"], "--modes"),
        (["sweep", "--dtype", "float16"], "float16"),
        (["sweep", "--repeats", "-1"], "--repeats"),
        (["sweep", "--batch-sizes", "65", "--examples", "64"], "--examples"),
        (["sweep", "--seed", "-1", "--features", "9", "--out", "{out}"], "seed"),
        (["sweep", "--colour"], "--colour"),
        (["predict", "--input", "x.npy"], "--address"),
        (["predict", "--address", "a:1"], "--input"),
        (["predict", "--address", "a:1", "--input", "x", "--deadline", "0"], "--deadline"),
        (["predict", "--address", "a:1", "--input", "/nowhere/x.npy"], "/nowhere/x.npy"),
    ],
)
def test_a_bad_command_line_fails_with_one_line(tmp_path, words, told, complaint):
    assert told in complaint(*(word.format(out=tmp_path) for word in words))


@pytest.fixture
def rows(tmp_path):
    x = standard_normal(EXAMPLES, FEATURES, 0, "float32")
    np.save(tmp_path / "x.npy", x)
    scores = x.astype(np.float64) @ from_seed(CLASSES, FEATURES, 0).T
    return tmp_path / "x.npy", scores.argmax(axis=1)


def test_predict_prints_one_label_a_line(server, rows):
    path, labels = rows
    done = run("predict", "--address", server.address, "--input", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "".join(f"{label}\n" for label in labels)


def test_predict_writes_labels_to_a_file(server, rows, tmp_path):
    path, labels = rows
    out = tmp_path / "labels"
    words = ("predict", "--address", server.address, "--input", path, "--out", out)
    done = in_process.run(main, *words)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    written = np.load(out)
    assert written.dtype == np.int64
    np.testing.assert_array_equal(written, labels)


def test_predict_takes_a_single_row(server, rows, tmp_path):
    path, labels = rows
    np.save(tmp_path / "one.npy", np.load(path)[3])
    words = ("predict", "--address", server.address, "--input", tmp_path / "one.npy")
    done = in_process.run(main, *words)
    assert (done.returncode, done.stdout) == (0, f"{labels[3]}\n")


def _npz(path):
    with path.open("wb") as file:
        np.savez(file, x=np.zeros((2, FEATURES), np.float32))


def _pickle(path):
    with path.open("wb") as file:
        np.save(file, np.array([{}, []], np.object_), allow_pickle=True)


def _saved(array):
    def write(path):
        with path.open("wb") as file:
            np.save(file, array)

    return write


@pytest.mark.parametrize(
    ("write", "told"),
    [
        (lambda path: path.write_bytes(b""), "x.npy"),
        (lambda path: path.write_text("1,2,3\n"), "x.npy"),
        (lambda path: path.write_bytes(b"PK\x03\x04 no archive"), "x.npy"),
        (lambda path: path.write_bytes(b"\x93NUMPY\x01\x00"), "x.npy"),
        (lambda path: path.mkdir(), "x.npy"),
        (_npz, "x.npy"),
        (_pickle, "x.npy"),
        (_saved(np.zeros((2, 3), np.float32)), "[2, 3]"),
        (_saved(np.float32(1)), "[]"),
        (_saved(np.zeros((2, FEATURES), np.complex64)), "complex64"),
    ],
    ids=["empty", "text", "zip", "cut", "folder", "npz", "pickle", "width", "scalar", "complex"],
)
def test_predict_refuses_a_bad_input_file_with_one_line(server, tmp_path, write, told, complaint):
    write(tmp_path / "x.npy")
    line = complaint("predict", "--address", server.address, "--input", tmp_path / "x.npy")
    assert told in line


def test_predict_of_an_address_where_nobody_is_fails_with_one_line(rows, complaint):
    line = complaint("predict", "--address", unreachable(), "--input", rows[0], status=1)
    assert re.search(r"UNAVAILABLE", line)


def test_predict_of_an_unknown_model_fails_with_one_line(server, rows, complaint):
    options = ("--address", server.address, "--input", rows[0], "--model", "nobody")
    assert "'nobody'" in complaint("predict", *options, status=1)
