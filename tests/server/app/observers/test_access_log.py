"""Lines of the access log and of the slow log, as real servers write them to stderr."""

import fcntl
import json
import os
import socket
import subprocess
import sys
import threading

import grpc
import numpy as np
import pytest
from conftest import PATIENCE_S, ROOT, SERVICE, Caller
from grpc_health.v1 import health_pb2, health_pb2_grpc
from http_pages import scrape

from model.export import export
from model.weights import from_seed
from protos import inference_pb2 as pb
from protos.codec import InferRequest, encode_request
from protos.tensors import Tensor

STAGES = ["receive", "decode", "queue", "assemble", "compute", "handover", "encode"]
# Of a line; what clients send is bounded.
LONGEST_LINE = 10_000


@pytest.fixture(scope="module")
def models(graphs):
    export(graphs.folder, "linear", from_seed(4, 8, 0), "float32", 0)
    graphs.add_steps()
    return graphs.folder


@pytest.fixture(scope="module")
def server(launch_for_module, models):
    return launch_for_module(models, "--access-log", "on", "--group-rows", "2")


@pytest.fixture(scope="module")
def caller(call, server):
    return call(server.address)


@pytest.fixture
def lines(server, eventually):
    """A function that waits for so many new lines of the access log, and gives them."""
    before = len(access(server))

    def wait(count):
        eventually(lambda: len(access(server)) >= before + count, f"{count} lines")
        found = access(server)[before:]
        assert len(found) == count
        return found

    return wait


def access(server):
    return [line for line in every(server) if line["logger"] == "access"]


def every(server):
    """All lines on stderr, each of which is JSON; but for one that is being written."""
    server._log.seek(0)
    return [json.loads(line) for line in server._log.read().split("\n")[:-1]]


def infer(caller, *, metadata=(), rows=2, model="linear", **more):
    message = caller.message(model, x=np.ones((rows, 8), np.float32), **more)
    method = caller.channel.unary_unary(SERVICE + "ModelInfer")
    return message, method(message, metadata=metadata, timeout=PATIENCE_S)


def test_a_request_has_one_line_with_all_that_is_known(caller, lines):
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    message, answer = infer(caller, id="seven", metadata=[("traceparent", trace)])
    (line,) = lines(1)
    took = {name: line.pop(f"{name}_ms") for name in STAGES}
    total_ms = line.pop("total_ms")
    assert 0 < took["compute"] <= sum(took.values()) <= total_ms + 0.01
    assert line.pop("time").endswith("Z")
    assert line.pop("peer").startswith("ipv4:127.0.0.1:")
    assert line.pop("closed") in ("full", "idle")
    assert line == {
        "level": "INFO",
        "logger": "access",
        "message": "request",
        "method": "ModelInfer",
        "code": "OK",
        "error": "",
        "model": "linear",
        "version": "1",
        "request_id": "seven",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "rows": 2,
        "batch_rows": 2,
        "request_bytes": len(message),
        "response_bytes": len(answer),
    }


def test_each_message_of_a_stream_has_a_line_and_so_has_the_stream(caller, lines):
    message = caller.message("linear", x=np.ones((2, 8), np.float32))
    wrong = caller.message("nobody", x=np.ones((2, 8), np.float32))
    caller.stream([message, wrong, message])
    found = lines(4)
    assert [line["code"] for line in found if line["message"] == "request"].count("OK") == 2
    assert "NOT_FOUND" in [line["code"] for line in found]
    (stream,) = (line for line in found if line["message"] == "call")
    assert (stream["method"], stream["code"]) == (SERVICE + "ModelStreamInfer", "OK")


def test_other_calls_have_a_line_unless_they_are_health_checks(caller, lines):
    caller.health()
    caller.control("ServerReady")
    caller.control("ModelReady", name="linear")
    caller.control("ModelMetadata", name="linear")
    with pytest.raises(grpc.RpcError):
        caller.raw("NoSuch", b"")
    found = lines(2)
    assert {(line["method"], line["code"]) for line in found} == {
        (SERVICE + "ModelMetadata", "OK"),
        (SERVICE + "NoSuch", "UNIMPLEMENTED"),
    }
    assert all(line["total_ms"] >= 0 for line in found)


def test_a_health_check_that_fails_has_a_line(caller, lines):
    stub = health_pb2_grpc.HealthStub(caller.channel)
    with pytest.raises(grpc.RpcError):
        stub.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=PATIENCE_S)
    (line,) = lines(1)
    assert (line["method"], line["code"]) == ("/grpc.health.v1.Health/Check", "NOT_FOUND")


def test_of_requests_that_succeed_a_share_is_logged_and_all_others(launch, call, models):
    server = launch(models, "--access-log", "1/10")
    caller = call(server.address)
    for _ in range(40):
        infer(caller)
    for _ in range(3):
        with pytest.raises(grpc.RpcError):
            infer(caller, model="nobody")
    assert server.stop() == 0
    codes = [line["code"] for line in access(server)]
    assert (codes.count("OK"), codes.count("NOT_FOUND")) == (4, 3)


def test_by_default_nothing_is_logged_and_at_debug_health_checks_are(launch, call, models):
    quiet = launch(models)
    loud = launch(models, "--access-log", "on", "--log-level", "debug")
    for server in (quiet, loud):
        infer(call(server.address))
        call(server.address).health()
        assert server.stop() == 0
    assert access(quiet) == []
    assert {line.get("method") for line in access(loud)} == {
        "ModelInfer",
        "/grpc.health.v1.Health/Check",
    }


def test_a_slow_request_is_a_warning_with_the_same_content(launch, call, models):
    server = launch(models, "--slow-ms", "1", "--log-level", "error")
    caller = call(server.address)
    caller.infer(caller.message("steps", steps=np.full((1, 1), 20_000), id="slow"))
    fast = launch(models, "--slow-ms", "600000", "--access-log", "on")
    infer(call(fast.address))
    assert (server.stop(), fast.stop()) == (0, 0)
    (line,) = access(server)
    assert (line["level"], line["message"]) == ("WARNING", "slow request")
    assert (line["model"], line["request_id"], line["code"]) == ("steps", "slow", "OK")
    assert line["compute_ms"] > 1
    (line,) = access(fast)
    assert (line["level"], line["message"]) == ("INFO", "request")


NASTY = [
    'a\n{"level": "ERROR", "message": "forged"}\n',
    "\x1b[2J\x1b]0;title\x07\x9b31m",
    "\u2028\u2029\x85\x0b\x0c\r\x00\x7f",
    '"}\\u0022,\\',
    "\U0001f600" * 300,
    "x" * 2**20,
]


@pytest.mark.parametrize("text", NASTY, ids=range(len(NASTY)))
def test_what_clients_send_breaks_no_line_and_forges_none(caller, server, lines, text):
    before = len(every(server))
    secret = "s3cret-" + os.urandom(8).hex()
    metadata = [("authorization", f"Bearer {secret}"), ("x-bin", secret.encode())]
    infer(caller, id=text, metadata=metadata[:1])
    for wrong in ({"model": text}, {"version": text}, {"outputs": [text]}):
        with pytest.raises(grpc.RpcError):
            infer(caller, id=text, metadata=metadata[:1], **wrong)
    bad_input = encode_request(InferRequest("linear", (Tensor.of(text, np.ones((1, 8))),)))
    with pytest.raises(grpc.RpcError):
        caller.raw("ModelInfer", bad_input)
    with pytest.raises(grpc.RpcError):
        caller.control("RepositoryModelLoad", model_name=text)
    found = lines(6)
    server._log.seek(0)
    written = server._log.read()
    assert all(" " <= character <= "~" or character == "\n" for character in written)
    assert secret not in written
    assert max(map(len, written.split("\n"))) < LONGEST_LINE
    assert "forged" not in {line["message"] for line in every(server)[before:]}
    assert {line["code"] for line in found} >= {"OK", "NOT_FOUND", "INVALID_ARGUMENT"}


def test_bytes_that_are_no_text_break_no_line(caller, server):
    # What protobuf calls a string may be any bytes on the wire: a lone surrogate, and 0xff.
    for raw in (b"\xed\xa0\x80", b"\xff\xfe", b"a\nb"):
        for field in (0x0A, 0x12, 0x1A):
            with pytest.raises(grpc.RpcError):
                caller.raw("ModelInfer", bytes((field, len(raw))) + raw)
    every(server)


@pytest.mark.parametrize(
    "data",
    [
        b"GET /\x1b[31m HTTP/1.1\r\nHost: a\n{\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\n" * 500,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x04\x01\x05\x00\x00\x00\x01\n\n\n\n",
        b"\x00\n" * 4000,
    ],
)
def test_garbage_on_a_connection_breaks_no_line(server, data):
    host, _, port = server.address.rpartition(":")
    before = len(every(server))
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(2**16):
            pass
    assert len(every(server)) >= before


def test_a_path_of_any_bytes_is_one_line(caller, lines):
    path = "/a\x1b[1m/" + "b" * 5000
    with pytest.raises(grpc.RpcError):
        caller.channel.unary_unary(path)(b"", timeout=PATIENCE_S)
    (line,) = lines(1)
    assert line["code"] in ("UNIMPLEMENTED", "RESOURCE_EXHAUSTED")
    assert len(line["method"]) < 300


class StoppedReader:
    """A server whose stderr is a small pipe that nobody reads until `lines` is called."""

    def __init__(self, models, *options):
        self._read, write = os.pipe()
        fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
        command = [sys.executable, "-m", "server", "--models", str(models)]
        command += ["--address", "127.0.0.1:0", "--validation", "off", *options]
        # It says on stderr alone where that is, if it may choose.
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.metrics_address = f"127.0.0.1:{free.getsockname()[1]}"
        command += ["--metrics-address", self.metrics_address]
        self.popen = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=write, text=True, cwd=ROOT
        )
        os.close(write)
        self.address = self.popen.stdout.readline().removeprefix("listening on ").strip()

    def lines(self):
        """Read all there is, until the server has ended."""
        with os.fdopen(self._read) as pipe:
            return [json.loads(line) for line in pipe.read().splitlines()]

    def close(self):
        self.popen.kill()
        self.popen.wait()
        self.popen.stdout.close()


@pytest.fixture
def stopped_reader(models):
    server = StoppedReader(models, "--access-log", "on")
    yield server
    server.close()


SENT = 9000
CHANGE = {"log_warning": pb.LogSettingsRequest.SettingValue(bool_param=True)}


def test_a_reader_that_stands_still_holds_up_no_request_and_lines_are_dropped(stopped_reader):
    caller = Caller(stopped_reader.address)
    message = caller.message("linear", x=np.ones((1, 8), np.float32))
    for _ in range(SENT // 3000):
        assert len(caller.stream([message] * 3000)) == 3000
    # What is logged in the usual way waits no more than that.
    caller.control("LogSettings", settings=CHANGE)
    caller.channel.close()
    counted = scrape(stopped_reader.metrics_address).value("argmax_dropped_total", what="log_lines")
    stopped_reader.popen.terminate()
    found = []
    reader = threading.Thread(target=lambda: found.extend(stopped_reader.lines()))
    reader.start()
    assert stopped_reader.popen.wait(PATIENCE_S) == 0
    reader.join(PATIENCE_S)
    logged = sum(line["message"] in ("request", "call") for line in found)
    dropped = [line["dropped"] for line in found if line["message"] == "log lines were dropped"]
    assert 1 <= len(dropped) <= 2
    assert 0 < counted <= dropped[-1]
    # Of the streams too; lines of the drain itself may be among the dropped.
    assert SENT <= logged + dropped[-1] <= SENT + 10


def test_the_end_does_not_wait_for_a_reader_that_stands_still(stopped_reader):
    caller = Caller(stopped_reader.address)
    message = caller.message("linear", x=np.ones((1, 8), np.float32))
    assert len(caller.stream([message] * 500)) == 500
    caller.channel.close()
    stopped_reader.popen.terminate()
    assert stopped_reader.popen.wait(PATIENCE_S) == 0
