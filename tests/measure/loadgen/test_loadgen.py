import importlib
import json
import os
import re
import signal
import subprocess
import sys
from concurrent import futures
from importlib.util import find_spec
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest
from onnx import helper

from client.client import Client, ModelInput
from client.connection.credentials import CredentialFiles
from client.errors import RequestFailed, UsageError
from measure.__main__ import main
from measure.core.verification import Experiment, check, check_counted, examples, truth
from measure.loadgen import logs as loadgen_logs
from measure.loadgen.examples import MOST_LOADED_BYTES, LoadedExamples
from measure.loadgen.table import metric
from measure.loadgen.worker_job import Job, Rules
from model.examples import standard_normal
from model.export import export
from model.weights import exported, from_seed
from protos import inference_pb2 as pb

ROOT = Path(__file__).resolve().parents[3]
CLASSES, FEATURES, EXAMPLES = 64, 512, 50
SMALL = ["--features", FEATURES, "--examples", EXAMPLES, "--threads", 1]
SCENARIOS = ["SingleStream", "MultiStream", "Server", "Offline"]
QUICK = "quick: not a valid MLPerf result"

needs_loadgen = pytest.mark.skipif(
    find_spec("mlperf_loadgen") is None, reason="the extra [loadgen] is not installed"
)


def run(folder, *words):
    """Run LoadGen by the command line, shortly; the process that ended, and its record."""
    done = subprocess.run(command(folder, *words), **PIPES, timeout=100, check=False)
    path = folder / "loadgen.json"
    return done, json.loads(path.read_text()) if path.exists() else None


PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}


def command(folder, *words, quick_s=0.3):
    options = ["--quick", quick_s, "--out", folder, *SMALL, *words]
    return [sys.executable, "-m", "client", "loadgen", *map(str, options)]


@pytest.fixture(scope="module")
def server(graphs, serve):
    w = exported(from_seed(CLASSES, FEATURES, 0), "float32")
    export(graphs.folder, "linear_argmax", w, "float32", 0)
    export(graphs.folder, "other", from_seed(CLASSES, FEATURES, 7), "float32", 7)
    # Its weights are those of the reference, but for the sign; it does not tell them.
    graphs.add(
        "negated",
        [
            helper.make_node("MatMul", ["x", "w"], ["scores"]),
            helper.make_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0),
        ],
        {"x": ("float32", ["batch", FEATURES])},
        {"label": ("int64", ["batch"])},
        {"w": -w.T.copy()},
    )
    return serve(graphs.folder)


@pytest.fixture(scope="module")
def all_of_them(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loadgen")
    return folder, *run(folder)


@needs_loadgen
def test_all_scenarios_complete_against_a_server_of_its_own(all_of_them):
    folder, done, content = all_of_them
    assert "error" not in done.stderr
    assert [result["scenario"] for result in content["results"]] == SCENARIOS
    for result in content["results"]:
        assert result["failures"] == {}
        labels, accuracy = result["performance"]["labels"], result["accuracy"]
        assert (labels["wrong"], labels["agreement"]) == (0, 1)
        # LoadGen fills up the last query of eight.
        rows = -(-EXAMPLES // 8) * 8 if result["scenario"] == "MultiStream" else EXAMPLES
        assert accuracy == {"rows": rows, "wrong": 0, "near_ties": 0, "agreement": 1}
        assert str(folder / result["scenario"]) in done.stdout
    good = all(result["good"] for result in content["results"])
    assert done.returncode == (0 if good else 1)


@needs_loadgen
def test_a_quick_run_says_so_wherever_it_is_read(all_of_them):
    _, done, content = all_of_them
    assert (content["label"], content["conforming"]) == (QUICK, False)
    for text in (done.stdout, done.stderr):
        assert text.splitlines()[0].strip() == QUICK


@needs_loadgen
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_what_is_shown_is_what_loadgen_wrote(all_of_them, scenario):
    folder, done, content = all_of_them
    (result,) = (one for one in content["results"] if one["scenario"] == scenario)
    summary = (folder / scenario / "performance" / "mlperf_log_summary.txt").read_text()
    verdict = result["performance"]["verdict"]
    assert f"Result is : {verdict['verdict']}\n" in summary
    name, value = verdict["metric"]["name"], verdict["metric"]["value"]
    (line,) = (line for line in summary.splitlines() if line.startswith(name))
    assert float(line.split(":")[1]) == value
    for percentile, latency_ns in verdict["percentiles_ns"].items():
        assert re.search(rf"^{percentile} percentile latency .*: {latency_ns}$", summary, re.M)
    assert set(verdict["percentiles_ns"]) >= {"50.00", "90.00", "99.00"}
    assert "min_duration (ms): 300" in summary
    assert re.search(rf"^{scenario} +{verdict['verdict']} ", done.stdout, re.M)
    assert (verdict["verdict"] == "VALID") == (not verdict["reasons"])
    samples = {"MultiStream": 8 * verdict["queries"], "Offline": samples_per_query(summary)}
    assert result["performance"]["labels"]["rows"] == samples.get(scenario, verdict["queries"])
    assert (
        verdict["version"] in (folder / scenario / "accuracy" / "mlperf_log_detail.txt").read_text()
    )


def samples_per_query(summary):
    return int(re.search(r"^samples_per_query : (\d+)$", summary, re.M)[1])


@needs_loadgen
def test_the_seeds_are_those_of_loadgen_itself(all_of_them):
    settings = importlib.import_module("mlperf_loadgen").TestSettings()
    assert settings.FromConfig("", "linear_argmax", "Server", 0) == 0
    summary = (all_of_them[0] / "Server" / "performance" / "mlperf_log_summary.txt").read_text()
    for name in ("qsl_rng_seed", "sample_index_rng_seed", "schedule_rng_seed"):
        assert f"{name} : {getattr(settings, name)}\n" in summary
    assert settings.qsl_rng_seed != 0


@needs_loadgen
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_run_that_is_not_quick_has_the_lengths_of_the_rules(scenario):
    settings_of = importlib.import_module("measure.loadgen.settings").settings_of
    rules = Rules(None, server_latency_ms=20, server_qps=70, offline_qps=None)
    experiment = Experiment(CLASSES, FEATURES, "float32", 0)
    job = Job(
        *(scenario, "performance", "", "m", "x", "stream", 1, 1, rules, experiment, ""),
        CredentialFiles(),
    )
    settings = settings_of(job, samples_per_s=100, latency_ns=4e6)
    assert settings.min_duration_ms == 600_000
    least = {"MultiStream": 662, "Offline": 24_576}
    assert settings.min_query_count == least.get(scenario, 100)
    assert (settings.server_target_qps, settings.server_target_latency_ns) == (70, 20_000_000)
    # More than the warm-up saw, or the queries would not last.
    assert settings.offline_expected_qps == 150
    assert settings.single_stream_expected_latency_ns == 2_000_000
    assert settings.multi_stream_samples_per_query == 8


@needs_loadgen
@pytest.mark.slow
def test_a_query_of_many_samples_is_one_request(server, call, tmp_path):
    caller = call(server.address)
    before = caller.statistics("linear_argmax")
    options = ["--address", server.address, "--transport", "unary", "--scenario", "MultiStream"]
    done, content = run(tmp_path, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (tmp_path / "models").exists()
    after = caller.statistics("linear_argmax")
    rows = after.inference_count - before.inference_count
    requests = after.inference_stats.success.count - before.inference_stats.success.count
    queries = content["results"][0]["performance"]["verdict"]["queries"]
    assert queries >= 662
    assert rows == 8 * requests
    assert requests > queries


@needs_loadgen
@pytest.mark.parametrize("transport", ["stream", pytest.param("unary", marks=pytest.mark.slow)])
def test_several_servers_are_driven_together(server, serve, graphs, call, tmp_path, transport):
    servers = [server, serve(graphs.folder)]
    callers = [call(each.address) for each in servers]
    before = [caller.statistics("linear_argmax").inference_count for caller in callers]
    options = ["--scenario", "SingleStream", "--transport", transport, "--balance", "round_robin"]
    done, content = run(tmp_path, *(w for s in servers for w in ("--address", s.address)), *options)
    assert content["results"][0]["failures"] == {}, done.stderr
    assert content["results"][0]["performance"]["labels"]["wrong"] == 0
    assert content["settings"]["address"] == ",".join(each.address for each in servers)
    after = [caller.statistics("linear_argmax").inference_count for caller in callers]
    assert all(now > then for now, then in zip(after, before, strict=True))


@needs_loadgen
def test_wrong_labels_are_counted_in_both_runs(server, tmp_path):
    options = ["--address", server.address, "--model", "negated", "--scenario", "Offline"]
    done, content = run(tmp_path, *options)
    assert done.returncode == 1
    (result,) = content["results"]
    assert not result["good"]
    assert result["accuracy"]["wrong"] == EXAMPLES
    assert result["accuracy"]["agreement"] == 0
    labels = result["performance"]["labels"]
    assert labels["wrong"] == labels["rows"] > 0


@needs_loadgen
@pytest.mark.slow
def test_a_bound_that_is_not_met_is_invalid_with_its_reasons(server, tmp_path):
    options = ["--address", server.address, "--scenario", "Server", "--server-qps", 100]
    done, content = run(tmp_path, *options, "--server-latency-ms", "0.001")
    assert done.returncode == 1
    verdict = content["results"][0]["performance"]["verdict"]
    assert verdict["verdict"] == "INVALID"
    for reason in (
        "Performance constraints satisfied: no",
        "Early stopping satisfied: no",
        "Reduce target QPS to improve latency.",
    ):
        assert reason in verdict["reasons"]
        assert f"Server: {reason}" in done.stdout
    assert re.search("^Server +INVALID ", done.stdout, re.M)


@needs_loadgen
@pytest.mark.parametrize(
    ("number", "said"),
    [
        pytest.param(signal.SIGKILL, "UNAVAILABLE: ", marks=pytest.mark.slow),
        pytest.param(signal.SIGSTOP, "DEADLINE_EXCEEDED: no answer for ", marks=pytest.mark.slow),
    ],
)
def test_a_server_that_goes_away_ends_the_run(
    launch, graphs, server, call, eventually, number, said, tmp_path
):
    process = launch(graphs.folder)
    caller = call(process.address)
    options = ["--address", process.address, "--scenario", "SingleStream", "--timeout-s", 1]
    running = subprocess.Popen(command(tmp_path, *options, quick_s=60), **PIPES)
    try:
        # More than the warm-up sends.
        eventually(lambda: caller.statistics("linear_argmax").inference_count > 200, "LoadGen runs")
        os.kill(process.popen.pid, number)
        stdout, stderr = running.communicate(timeout=60)
    finally:
        running.kill()
        running.communicate()
    assert running.returncode == 1, stderr
    (result,) = json.loads((tmp_path / "loadgen.json").read_text())["results"]
    assert result["performance"] is None
    assert result["accuracy"] is None
    assert result["failures"]["performance"].startswith(said)
    assert f"SingleStream, performance: failed: {said}" in stdout


@needs_loadgen
@pytest.mark.slow
def test_nothing_goes_on_when_the_command_is_killed(
    launch, graphs, server, call, eventually, tmp_path
):
    process = launch(graphs.folder)
    caller = call(process.address)

    def answered():
        return caller.statistics("linear_argmax").inference_count

    options = ["--address", process.address, "--scenario", "SingleStream"]
    running = subprocess.Popen(command(tmp_path, *options, quick_s=60), **PIPES)
    try:
        eventually(lambda: answered() > 200, "LoadGen runs")
        (worker,) = psutil.Process(running.pid).children()
    finally:
        running.kill()
        running.communicate()
    worker.wait(20)


class Forwarding(grpc.GenericRpcHandler):
    """Has the two RPCs that inference takes, and tells nothing of the model, as KServe does."""

    def __init__(self, caller):
        self._caller = caller

    def service(self, call):
        """Find the handler of a method."""
        method = call.method.rpartition("/")[2]
        if method == "ModelMetadata":
            told = pb.ModelMetadataResponse(name="linear_argmax").SerializeToString()
            return grpc.unary_unary_rpc_method_handler(lambda request, context: told)
        if method == "ModelInfer":
            return grpc.unary_unary_rpc_method_handler(
                lambda request, context: self._caller.raw(method, request)
            )
        return None


@pytest.fixture
def bare_address(server, call):
    bare = grpc.server(futures.ThreadPoolExecutor(4))
    bare.add_generic_rpc_handlers([Forwarding(call(server.address))])
    port = bare.add_insecure_port("127.0.0.1:0")
    bare.start()
    yield f"127.0.0.1:{port}"
    bare.stop(None).wait()


@needs_loadgen
@pytest.mark.slow
def test_an_endpoint_that_tells_nothing_of_its_model_is_driven(bare_address, tmp_path):
    options = ["--address", bare_address, "--transport", "unary", "--scenario", "Offline"]
    done, content = run(tmp_path, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert content["results"][0]["accuracy"]["agreement"] == 1


def test_the_client_is_told_what_such_an_endpoint_takes(bare_address):
    x = standard_normal(3, FEATURES, 0, "float32")
    takes = ModelInput("x", np.dtype("float32"), (FEATURES,))
    with Client(bare_address, takes=takes) as client:
        assert client.told("max_message_bytes") == ""
        wanted = truth(Experiment(CLASSES, FEATURES, "float32", 0, 3)).expected.labels
        np.testing.assert_array_equal(client.predict(x), wanted)
        np.testing.assert_array_equal(client.predict_in_one_request(x), wanted)
    with Client(bare_address) as client, pytest.raises(UsageError, match="has inputs"):
        client.predict(x)


def test_another_failure_than_a_missing_config_is_told(server):
    with Client(server.address, "none") as client, pytest.raises(RequestFailed, match="NOT_FOUND"):
        client.told("max_message_bytes")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--scenario", "Interactive"], "invalid choice: 'Interactive'"),
        (["--quick", "0"], "expected seconds over 0"),
        (["--server-qps", "-1"], "expected a number over 0"),
        pytest.param(
            ["--model", "other"], "got --model other without --address", marks=needs_loadgen
        ),
        pytest.param(
            ["--address", "ADDRESS", "--model", "other"],
            "the server's model has other weights than the reference",
            marks=needs_loadgen,
        ),
    ],
)
def test_usage(words, said, server, tmp_path, capsys):
    words = [server.address if word == "ADDRESS" else word for word in words]
    small = [str(word) for word in (*SMALL, "--out", tmp_path / "out", *words)]
    assert main(["loadgen", *small]) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("argmax-client: error: ")
    assert said in line


def test_without_the_extra_one_line_says_how_to_install_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "mlperf_loadgen", None)
    assert main(["loadgen", "--quick", "--out", str(tmp_path / "out")]) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert "pip install -e '.[loadgen]'" in line
    assert not (tmp_path / "out").exists()


EXPERIMENT = Experiment(8, 16, "float32", 3, examples=200)


def test_examples_are_those_of_their_indices_in_any_order():
    x = standard_normal(200, 16, 3, "float32")
    indices = np.random.default_rng(1).permutation(200)[:150]
    np.testing.assert_array_equal(examples(EXPERIMENT, indices), x[indices])
    loaded = LoadedExamples(EXPERIMENT)
    loaded.load(indices.tolist())
    some = indices[[5, 3, 3, 77]].tolist()
    np.testing.assert_array_equal(loaded.rows(some), x[some])
    np.testing.assert_array_equal(loaded.rows(some[:1]), x[some[:1]])
    loaded.unload(indices.tolist())
    with pytest.raises(KeyError):
        loaded.rows(some)


@pytest.mark.parametrize(("features", "most"), [(16, 5000), (2**20, 256), (2**29, 1)])
def test_no_more_examples_are_loaded_than_fit(features, most):
    loaded = LoadedExamples(Experiment(2, features, "float32", 0, examples=5000))
    assert loaded.most_loaded == most
    assert most == 1 or most * features * 4 <= MOST_LOADED_BYTES


def test_labels_count_as_often_as_they_came():
    reference = truth(EXPERIMENT)
    labels = reference.expected.labels.copy()
    labels[7] = (labels[7] + 1) % 8
    every = np.arange(200)
    once = check_counted(reference, every, labels, np.ones(200, np.int64))
    assert once == check(reference, 0, labels)
    assert once.disagreements == 1
    counts = np.where(every == 7, 5, 2)
    often = check_counted(reference, every[::-1], labels[::-1], counts[::-1])
    assert (often.wrong_labels, often.disagreements) == (5 * once.wrong_labels, 5)
    with pytest.raises(UsageError, match="examples 0 to 200; expected indices below 200"):
        check_counted(reference, np.array([0, 200]), np.array([1, 1]), np.array([1, 1]))


def test_results_are_shown_with_their_unit():
    shown = metric(loadgen_logs.Metric("90.0th percentile latency (ns)", 4_199_627))
    assert shown == ("4.20", "ms 90th percentile latency")
    shown = metric(loadgen_logs.Metric("Samples per second", 737.26))
    assert shown == ("737", "samples per second")


@pytest.mark.parametrize("text", ["", "[", '[{"qsl_idx": 1}]', '[{"qsl_idx": 1, "data": "00"}]'])
def test_a_log_that_is_broken_is_refused(text, tmp_path):
    (tmp_path / loadgen_logs.ACCURACY).write_text(text)
    with pytest.raises(loadgen_logs.LogError):
        loadgen_logs.labels(tmp_path)


def test_a_summary_without_a_verdict_is_refused(tmp_path):
    (tmp_path / loadgen_logs.SUMMARY).write_text("\nNo errors encountered during test.\n")
    (tmp_path / loadgen_logs.DETAIL).write_text("")
    with pytest.raises(loadgen_logs.LogError, match="Result is"):
        loadgen_logs.verdict(tmp_path)
