"""Bad requests again and again to a real process: each has its code, and nothing is left behind."""

import grpc
import numpy as np
import pytest
from status_rows import CLASSES, FEATURES, MOST_ROWS, REQUESTS
from steady import Steady

from model.export import export
from model.weights import from_seed
from protos import inference_pb2 as pb

SERVICE = "/inference.GRPCInferenceService/"
TIMES = 50
# What `linear` alone can be asked; the others need models, regions or servers of their own.
KNOWN = {"model_name", "model_version", "name", "copies", "datatype", "shape", "elements"}
KNOWN |= {"outputs", "parameters"}
ROWS = {
    what: row
    for what, row in REQUESTS.items()
    if set(row[1]) <= KNOWN and row[1].get("model_name", "nobody") == "nobody"
}
KEYS = ["", "..", "a/b", "/a/../b", "a\0b", "a" * 300, "nothing-is-there"]


@pytest.fixture(scope="module")
def process(launch_for_module, graphs):
    export(graphs.folder, "linear", from_seed(CLASSES, FEATURES, 0), "float32", 0)
    return launch_for_module(
        graphs.folder, "--max-batch-rows", MOST_ROWS, "--max-inflight-bytes", 32 * 1024
    )


@pytest.fixture(scope="module")
def caller(call, process):
    return call(process.address)


@pytest.fixture(scope="module")
def steady(process, caller, eventually):
    return Steady.of_linear(process, caller, eventually, CLASSES, FEATURES)


@pytest.fixture(autouse=True)
def _serves_as_before(steady):
    yield
    steady.check()


def message_of(changes):
    """A request as a row of REQUESTS changes it, encoded."""
    row = {"name": "x", "datatype": "FP32", "shape": [2, FEATURES], "elements": 2 * FEATURES}
    row |= {"model_name": "linear", "model_version": "", "copies": 1, "outputs": []}
    row |= {"parameters": {}, **changes}
    request = pb.ModelInferRequest(model_name=row["model_name"], model_version=row["model_version"])
    for _ in range(row["copies"]):
        request.inputs.add(name=row["name"], datatype=row["datatype"], shape=row["shape"])
        if row["elements"] is not None:
            item = np.dtype(np.float64 if row["datatype"] == "FP64" else np.float32)
            request.raw_input_contents.append(bytes(row["elements"] * item.itemsize))
    for name in row["outputs"]:
        request.outputs.add(name=name)
    for name, value in row["parameters"].items():
        request.parameters[name].string_param = value
    return request.SerializeToString()


def code_of(ask):
    """The status that a call ends with, by its name."""
    try:
        ask()
    except grpc.RpcError as error:
        return error.code().name
    return "OK"


@pytest.mark.parametrize("what", ROWS)
def test_a_bad_request_leaves_nothing_behind(caller, what):
    code, changes = ROWS[what]
    message = message_of(changes)
    send = caller.channel.unary_unary(f"{SERVICE}ModelInfer")
    assert {code_of(lambda: send(message, timeout=20)) for _ in range(TIMES)} == {code}
    stream = caller.channel.stream_stream(f"{SERVICE}ModelStreamInfer")
    ends = (("triton_grpc_error", "true"),)
    for _ in range(TIMES // 10):
        ask = lambda: list(stream(iter([message]), timeout=20, metadata=ends))  # noqa: E731
        assert code_of(ask) == code


@pytest.mark.parametrize("data", [b"\xff" * 9, b"\x0a\xff\xff\xff\x0f", bytes(1000)])
def test_a_malformed_message_leaves_nothing_behind(caller, data):
    send = caller.channel.unary_unary(f"{SERVICE}ModelInfer")
    found = {code_of(lambda: send(data, timeout=20)) for _ in range(TIMES)}
    assert found == {"INVALID_ARGUMENT"}


def test_an_unknown_rpc_leaves_nothing_behind(caller):
    send = caller.channel.unary_unary(f"{SERVICE}ModelGuess")
    assert {code_of(lambda: send(b"", timeout=20)) for _ in range(TIMES)} == {"UNIMPLEMENTED"}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_leave_nothing_behind(caller, value):
    x = np.full((3, FEATURES), value, np.float32)
    message = caller.message("linear", outputs=["label"], x=x)
    assert {code_of(lambda: caller.infer(message)) for _ in range(TIMES)} == {"OK"}


@pytest.mark.parametrize("key", KEYS)
def test_a_region_that_cannot_be_leaves_nothing_behind(caller, key):
    send = caller.channel.unary_unary(f"{SERVICE}SystemSharedMemoryRegister")
    request = pb.SystemSharedMemoryRegisterRequest(name="some", key=key, byte_size=64)
    data = request.SerializeToString()
    found = {code_of(lambda: send(data, timeout=20)) for _ in range(TIMES)}
    assert found == {"INVALID_ARGUMENT"}
