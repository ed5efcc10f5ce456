import contextlib
import ctypes
import json
import re
import signal
import socket
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import numpy as np
import pytest
from conftest import PATIENCE_S, SLOW_STEPS
from grpc_health.v1 import health_pb2, health_pb2_grpc

from model.export import export
from model.weights import from_seed
from protos.codec import decode_stream_response

ROOT = Path(__file__).resolve().parents[3]
CLASSES, FEATURES = 50, 512
UNARY_CLIENTS, STREAM_CLIENTS = 3, 3
LISTENING = re.compile(r"listening on 127\.0\.0\.1:[1-9][0-9]*\n")

Code = grpc.StatusCode


@pytest.fixture(scope="module")
def models(graphs):
    export(graphs.folder, "linear", from_seed(CLASSES, FEATURES, 0), "float32", 0)
    graphs.add_steps()
    return graphs.folder


@pytest.fixture(scope="module")
def examples():
    x = np.random.default_rng(5).standard_normal((200, FEATURES), np.float32)
    return x, (x @ from_seed(CLASSES, FEATURES, 0).astype(np.float32).T).argmax(axis=1)


def refused(*options):
    """Return the one line that a server says which cannot start, as a process."""
    done = subprocess.run(
        [sys.executable, "-m", "server", "--log-level", "error", *map(str, options)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("argmax-server: error: ")
    return line


class Load:
    """Clients that ask until they are refused; they keep count, and whatever was wrong."""

    def __init__(self, callers, examples):
        self._x, self._labels = examples
        self.answered = [0] * len(callers)
        self.wrong = []
        self._give_up = threading.Event()
        ways = [self._unary] * UNARY_CLIENTS + [self._stream] * STREAM_CLIENTS
        self._threads = [
            threading.Thread(target=self._guarded, args=(way, number, caller))
            for number, (way, caller) in enumerate(zip(ways, callers, strict=True))
        ]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._give_up.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()

    def join(self):
        """Wait until every client was refused."""
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()

    def _guarded(self, way, number, caller):
        try:
            way(number, caller)
        except BaseException as error:
            self.wrong.append(repr(error))

    def _ended_by(self, error):
        if error.code() is not Code.UNAVAILABLE:
            self.wrong.append(repr(error))

    def _message(self, caller, at):
        rows = slice(at % 100, at % 100 + 1 + at % 7)
        message = caller.message("linear", outputs=["label"], id=str(at), x=self._x[rows])
        return message, self._labels[rows]

    def _unary(self, number, caller):
        at = 0
        while not self._give_up.is_set():
            message, labels = self._message(caller, at)
            try:
                response = caller.infer(message)
            except grpc.RpcError as error:
                self._ended_by(error)
                return
            np.testing.assert_array_equal(response.outputs[0].data, labels)
            self.answered[number] += 1
            at += 1

    def _stream(self, number, caller):
        """Keep a few messages in flight; answers come without a gap until the stream ends."""
        room = threading.Semaphore(8)
        ended = threading.Event()

        def messages():
            at = 0
            while not (ended.is_set() or self._give_up.is_set()):
                if room.acquire(timeout=0.1):
                    yield self._message(caller, at)[0]
                    at += 1

        at = 0
        refused_from = None
        try:
            for data in caller.open_stream(messages()):
                text, response = decode_stream_response(data)
                assert response.id == str(at)
                if text:
                    # Read after the signal: refused, and so is all that follows.
                    assert "stopping" in text
                    refused_from = at
                else:
                    assert refused_from is None
                    labels = self._message(caller, at)[1]
                    np.testing.assert_array_equal(response.outputs[0].data, labels)
                    self.answered[number] += 1
                at += 1
                room.release()
        except grpc.RpcError as error:
            self._ended_by(error)
        finally:
            ended.set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_under_load_fails_nothing_that_was_accepted(
    launch, call, models, examples, eventually, number
):
    process = launch(models)
    callers = [call(process.address) for _ in range(UNARY_CLIENTS + STREAM_CLIENTS)]
    with Load(callers, examples) as load:
        eventually(lambda: min(load.answered) >= 20 or load.wrong, "every client is answered")
        assert process.stop(number) == 0
        load.join()
    assert load.wrong == []


def test_a_signal_lets_requests_in_flight_finish(launch, call, models, eventually):
    process = launch(models, "--group-rows", 2)
    caller, another = call(process.address), call(process.address)
    one = caller.message("steps", steps=np.array([[3]]))
    before_signal, after_answers = threading.Event(), threading.Event()

    def messages():
        yield from [one] * 3
        before_signal.set()
        after_answers.wait(30)

    with caller.busy_worker(executions=10):
        queued = [another.infer_later(one) for _ in range(5)]
        stream = another.open_stream(messages())
        assert before_signal.wait(10)
        # All of these are with the server when this is answered: one connection keeps the order,
        # and this has waited for the same worker.
        assert another.infer(one).outputs[0].data == 3
        process.popen.send_signal(signal.SIGTERM)
        for call_under_way in queued:
            assert call_under_way.result()
        for _ in range(3):
            text, response = decode_stream_response(next(stream))
            assert text == ""
            assert response.outputs[0].data == 3
    with pytest.raises(grpc.RpcError) as caught:
        next(stream)
    after_answers.set()
    assert caught.value.code() is Code.UNAVAILABLE
    assert process.wait() == 0


def test_health_says_not_serving_while_requests_finish(launch, call, models, eventually):
    process = launch(models, "--group-rows", 2)
    caller, watcher = call(process.address), call(process.address)
    watch = health_pb2_grpc.HealthStub(watcher.channel).Watch(
        health_pb2.HealthCheckRequest(), timeout=20
    )
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    with caller.busy_worker():
        process.popen.send_signal(signal.SIGTERM)
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert process.popen.poll() is None
        # Health says so first: what comes right behind it may still be taken.
        eventually(lambda: _refused(caller) is Code.UNAVAILABLE, "new requests are refused")
    watch.cancel()
    assert process.wait() == 0


def _refused(caller):
    with pytest.raises(grpc.RpcError) as caught:
        caller.infer(caller.message("steps", steps=np.array([[1]])), timeout=0.2)
    return caught.value.code()


def test_a_signal_that_another_thread_gets_ends_the_server_too(launch, models):
    process = launch(models)
    pid = process.popen.pid
    threads = {int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()} - {pid}
    assert ctypes.CDLL(None).tgkill(pid, min(threads), signal.SIGTERM) == 0
    assert process.wait() == 0


def test_the_grace_period_bounds_how_long_requests_may_take(launch, call, models):
    process = launch(models, "--group-rows", 2, "--grace-s", 0.2)
    caller = call(process.address)
    # All of it would take minutes.
    with caller.busy_worker(slow_steps=10 * SLOW_STEPS) as running:
        assert process.stop() == 0
        assert running.code() is Code.UNAVAILABLE


def test_open_streams_do_not_hold_up_the_end(launch, call, models):
    process = launch(models, "--grace-s", 3 * PATIENCE_S)
    caller = call(process.address)
    silence = threading.Event()
    message = caller.message("steps", steps=np.array([[1]]))

    def messages():
        yield message
        silence.wait(3 * PATIENCE_S)

    streams = [caller.open_stream(messages()) for _ in range(5)]
    try:
        for stream in streams:
            next(stream)
        assert process.stop() == 0
        for stream in streams:
            with pytest.raises(grpc.RpcError) as caught:
                next(stream)
            assert caught.value.code() is Code.UNAVAILABLE
    finally:
        silence.set()


def test_it_prints_one_line_and_logs_json(launch, call, models):
    process = launch(models)
    assert LISTENING.fullmatch(process.first_line)
    caller = call(process.address)
    with pytest.raises(grpc.RpcError):
        caller.infer(b"\xff")
    assert caller.health() == "SERVING"
    assert process.stop() == 0
    assert process.popen.stdout.read() == ""
    lines = [json.loads(line) for line in process.said()]
    assert {"time", "level", "logger", "message"} <= set.intersection(*map(set, lines))
    messages = [line["message"] for line in lines]
    assert messages == ["model loaded"] * 2 + ["serving", "draining", "stopped"]
    assert lines[2]["address"] == process.address


def test_log_times_carry_their_zone(launch, models, monkeypatch):
    # Local time is far from UTC, so that one cannot pass for the other.
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    before = datetime.now(UTC)
    process = launch(models)
    assert process.stop() == 0
    times = [json.loads(line)["time"] for line in process.said()]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", each) for each in times)
    parsed = [datetime.fromisoformat(each) for each in times]
    assert before - timedelta(milliseconds=1) <= parsed[0] <= parsed[-1] <= datetime.now(UTC)


def test_a_log_level_leaves_out_what_is_less_severe(launch, models):
    process = launch(models, "--log-level", "warning")
    assert process.stop() == 0
    assert process.said() == []


def test_options_come_from_the_environment_too(models, monkeypatch, refusal):
    monkeypatch.setenv("ARGMAX_SERVER_THREADS", "none")
    assert "ARGMAX_SERVER_THREADS" in refusal("--models", models)


def test_a_taken_port_is_refused_by_name(serve, models, refusal):
    address = serve(models).address
    assert address in refusal("--models", models, "--address", address)


def test_a_missing_folder_is_refused_by_name(tmp_path):
    assert f"{tmp_path}/nowhere" in refused("--models", tmp_path / "nowhere")


def test_an_empty_folder_is_refused_by_name(tmp_path, refusal):
    line = refusal("--models", tmp_path)
    assert str(tmp_path) in line
    assert "NAME/VERSION/model.onnx" in line


@pytest.mark.parametrize("content", [b"", b"this is no graph", "truncated"])
def test_a_corrupt_model_is_refused_by_name(models, tmp_path, content, refusal):
    path = tmp_path / "broken" / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    whole = (models / "linear" / "1" / "model.onnx").read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content == "truncated" else content)
    assert str(path) in refusal("--models", tmp_path)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--workers", "0"], "--workers"),
        (["--workers", "many"], "'many'"),
        (["--grace-s", "nan"], "--grace-s"),
        (["--stream-idle-s", "-1"], "--stream-idle-s"),
        (["--reflection", "maybe"], "--reflection"),
        (["--log-level", "loud"], "'loud'"),
        (["--colour", "red"], "--colour"),
        (["--address", "8001"], "HOST:PORT"),
        (["--address", "127.0.0.1:70000"], "70000"),
        (["--address", "unix:"], "unix:/path"),
        (["--address", "unix:/no/such/folder/socket"], "/no/such/folder/socket"),
        (["--address", "192.0.2.1:0"], "192.0.2.1"),
    ],
)
def test_a_bad_option_is_refused_by_name(models, options, word, refusal):
    assert word in refusal("--models", models, *options)


def test_a_process_ends_with_one_line_about_a_bad_option(models):
    assert "--workers" in refused("--models", models, "--workers", "0")


def test_models_must_be_given(refusal):
    assert "--models" in refusal()


def test_a_stale_socket_file_is_used_again(launch, call, models, tmp_path):
    path = tmp_path / "socket"
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as dead:
        dead.bind(str(path))
    assert path.is_socket()
    process = launch(models, address=f"unix:{path}")
    assert process.first_line == f"listening on unix:{path}\n"
    assert call(process.address).health() == "SERVING"
    assert process.stop() == 0


def test_the_socket_of_a_living_server_is_refused(serve, call, models, tmp_path, refusal):
    address = f"unix:{tmp_path}/socket"
    serve(models, address=address)
    assert address in refusal("--models", models, "--address", address)
    assert call(address).health() == "SERVING"


def test_a_file_that_is_no_socket_is_left_alone(models, tmp_path, refusal):
    path = tmp_path / "precious"
    path.write_text("data")
    assert str(path) in refusal("--models", models, "--address", f"unix:{path}")
    assert path.read_text() == "data"


def test_somebody_who_watches_health_does_not_hold_up_the_end(models, launch, call):
    process = launch(models, "--grace-s", 3 * PATIENCE_S)
    stub = health_pb2_grpc.HealthStub(call(process.address).channel)
    statuses = stub.Watch(health_pb2.HealthCheckRequest())
    assert next(statuses).status == health_pb2.HealthCheckResponse.SERVING
    assert process.stop() == 0


def resident_bytes(process):
    for line in Path(f"/proc/{process.popen.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


def test_memory_of_a_very_large_request_is_given_back(tmp_path, launch, call, eventually):
    features, rows, mib = 65_536, 512, 2**20
    export(tmp_path, "wide", from_seed(2, features, 0), "float32")
    process = launch(tmp_path, "--max-message-bytes", str(160 * mib))
    caller = call(process.address)
    small = caller.message("wide", x=np.ones((1, features), np.float32))
    caller.infer(small)
    before = resident_bytes(process)
    caller.infer(caller.message("wide", x=np.ones((rows, features), np.float32)))
    eventually(lambda: resident_bytes(process) - before < 48 * mib, "the memory is given back")
    caller.infer(small)
