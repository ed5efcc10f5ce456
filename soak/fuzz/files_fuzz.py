"""Start a server with damaged ONNX files, and load them: it must reject or serve them."""

import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import grpc
import numpy as np
import onnx
from onnx import TensorProto, helper

from client.client import Client
from measure.core.local_server import running_server
from measure.core.processes import child
from protos import inference_pb2 as pb
from protos.stub import InferenceStub
from soak.clients import ONCE, at_once, wrong
from soak.fuzz.mutation import mutated
from soak.known_answers import MODEL, SMALL, Questions, put_model
from soak.request_kinds import OPTIONS
from soak.tally import Tally

SERVERS = 2
_SPOILED = "spoiled"
_TIMEOUT_S = 60.0
_BETWEEN_CANARIES = 20
# Starting takes much longer than loading, and runs the same code.
_STARTS_SHARE = 100
_REFUSED = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}


def run(tally: Tally, folder: Path) -> None:
    """Count files that a server rejected by name, or served, while its other model kept serving."""
    # Each is tried in a separate process, one at a time per server.
    at_once([partial(_fuzz, tally, folder / str(n), tally.seed + n) for n in range(SERVERS)])


def _fuzz(tally: Tally, folder: Path, seed: int) -> None:
    """Damage files for one server."""
    folder.mkdir()
    put_model(folder, SMALL)
    put_model(folder, SMALL, _SPOILED)
    path = folder / _SPOILED / "1" / "model.onnx"
    corpus = [path.read_bytes(), *huge()]
    generator = random.Random(seed)
    with (
        running_server(folder, OPTIONS) as server,
        grpc.insecure_channel(server.address) as channel,
        Client(server.address, MODEL, deadline_s=_TIMEOUT_S, retry=ONCE) as client,
    ):
        stub = InferenceStub(channel)
        questions = Questions(SMALL)
        number = 0
        while tally.take():
            data = corpus[number] if number < len(corpus) else mutated(generator, corpus[:1])
            path.write_bytes(data)
            number += 1
            fault = _load(stub)
            if fault is None and number % _STARTS_SHARE == 1:
                tally.note("starts")
                fault = _start(folder)
            if fault is None and number % _BETWEEN_CANARIES == 0:
                x, wanted = questions[number]
                fault = wrong(client.predict(x), wanted)
            if fault is None:
                tally.add()
            else:
                tally.fail(data.hex(), fault)
            if not server.alive:
                tally.fail("the server", f"ended with {server.process.poll()}: {server.said()}")
                return


def huge() -> Iterator[bytes]:
    """Graphs with dimensions that are too large, or invalid."""
    for dims in ([2**62, 2**62], [2**40, 4], [-1, -5], [0, 2**63 - 1]):
        constant = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims, raw_data=bytes(16))
        nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
        yield _model(nodes, [constant])
    shape = onnx.numpy_helper.from_array(np.array([2**40, 2**20]), "shape")
    yield _model([helper.make_node("ConstantOfShape", ["shape"], ["y"])], [shape])


def _model(nodes: list[onnx.NodeProto], constants: list[TensorProto]) -> bytes:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", None])
    graph = helper.make_graph(nodes, "g", [x], [y], constants)
    made = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])
    return bytes(made.SerializeToString())


def _load(stub: InferenceStub) -> str | None:
    """Load the file; return any error other than a rejection."""
    request = pb.RepositoryModelLoadRequest(model_name=_SPOILED)
    try:
        stub.RepositoryModelLoad(request, timeout=_TIMEOUT_S)
    except grpc.RpcError as error:
        if error.code() not in _REFUSED or _SPOILED not in (error.details() or ""):
            return f"load: {error.code().name}: {error.details()}"
    return None


def _start(folder: Path) -> str | None:
    """Start a server with only this file; return any error other than a rejection."""
    options = ("--model-control", "explicit", "--load-model", _SPOILED)
    command = [sys.executable, "-m", "server", "--models", str(folder), "--address", "127.0.0.1:0"]
    with child([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        watchdog = threading.Timer(_TIMEOUT_S, process.kill)
        watchdog.start()
        try:
            if process.stdout.readline().startswith(b"listening on "):
                return None
            said = process.stderr.read().decode(errors="replace")
            code = process.wait()
        finally:
            watchdog.cancel()
    last = (said.strip().splitlines() or [""])[-1]
    refused = code == 2 and last.startswith("argmax-server: error: ") and "model.onnx" in last
    return None if refused else f"start: exit code {code}: {last}"
