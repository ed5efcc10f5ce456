"""Real servers, real processes and raw gRPC callers that the end-to-end tests share."""

import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import onnx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from onnx import TensorProto, helper

from command_line.resources import cores
from protos import inference_pb2 as pb
from protos.codec import (
    InferRequest,
    RequestedOutput,
    decode_response,
    decode_stream_response,
    encode_request,
)
from protos.tensors import Tensor
from server.app import arguments
from server.app.config import Config
from server.app.server import Server
from server.errors import StartError

ROOT = Path(__file__).parents[1]
SERVICE = "/inference.GRPCInferenceService/"
PATIENCE_S = 30
IR_VERSION, OPSET = 8, 13

# Of servers in this process too, as the environment has it for those in others:
# ARGMAX_SERVER_TRANSPORT=grpcio pytest ... runs everything on the other transport.
TRANSPORT = {
    name: os.environ[variable]
    for name, variable in (("transport", "ARGMAX_SERVER_TRANSPORT"),)
    if variable in os.environ
}

# One slow execution takes about a tenth of a second; a request for many of them can be cancelled
# between any two, so a test holds a worker as long as it likes and no longer.
SLOW_STEPS = 60_000
GROUP_ROWS = 2
SLICE_ROWS = 4 * GROUP_ROWS
STEPS_CONFIG = "max_batch_size: 1024 "
ROWS_MAY_MIX = 'parameters { key: "rows_may_mix" value { string_value: "true" } }'


def pytest_configure():
    """Get SIGINT even where a shell started this in the background, which ignores it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """Have more workers than cores: a third of the time tests wait for what starts, ends or stalls.

    Not for those that take minutes: some of these measure, or keep all cores busy by themselves.
    """
    count = cores()
    return count + count // 2 if config.option.markexpr == "not slow" else None


def pytest_collection():
    """Spare the garbage collector the thousands of tests that are kept to the end anyway."""
    gc.disable()


def pytest_collection_finish():
    """Let it look at what comes after them."""
    gc.collect()
    gc.freeze()
    gc.enable()


def wait_until(condition, what, timeout_s=PATIENCE_S):
    """Return what `condition` returns once that is true."""
    end = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < end, f"{what}: not within {timeout_s} s"
        time.sleep(0.005)
    return found


class Caller:
    """Sends messages to one server, valid or not, over a channel of its own."""

    def __init__(self, address):
        self.address = address
        self.channel = grpc.insecure_channel(
            address,
            options=[
                ("grpc.max_send_message_length", -1),
                ("grpc.max_receive_message_length", -1),
                ("grpc.use_local_subchannel_pool", 1),
            ],
        )

    @staticmethod
    def message(model, *, outputs=(), version="", id="", parameters=None, **inputs):
        """Encode a request for `inputs` by name."""
        return encode_request(
            InferRequest(
                model_name=model,
                inputs=tuple(Tensor.of(name, data) for name, data in inputs.items()),
                outputs=tuple(map(RequestedOutput, outputs)),
                model_version=version,
                id=id,
                parameters=parameters or {},
            )
        )

    def raw(self, method, data, timeout=PATIENCE_S):
        """Call a unary RPC with bytes."""
        return self.channel.unary_unary(SERVICE + method)(data, timeout=timeout)

    def control(self, method, **fields):
        """Call a unary RPC by the fields of its request."""
        request = getattr(pb, f"{method}Request")(**fields)
        response = getattr(pb, f"{method}Response")
        return response.FromString(self.raw(method, request.SerializeToString()))

    def infer(self, data, timeout=PATIENCE_S):
        """Send one encoded request."""
        return decode_response(self.raw("ModelInfer", data, timeout))

    def infer_later(self, data, timeout=PATIENCE_S):
        """Send one encoded request; a future of the encoded answer."""
        return self.channel.unary_unary(SERVICE + "ModelInfer").future(data, timeout=timeout)

    def open_stream(self, messages, *, errors_end_it=False, timeout=PATIENCE_S):
        """Send encoded requests on a stream; the call, an iterator of encoded answers."""
        metadata = (("triton_grpc_error", "true"),) if errors_end_it else ()
        return self.channel.stream_stream(SERVICE + "ModelStreamInfer")(
            messages, timeout=timeout, metadata=metadata
        )

    def stream(self, messages, **options):
        """Send encoded requests on a stream to its end: pairs of error text and answer."""
        return [decode_stream_response(d) for d in self.open_stream(iter(messages), **options)]

    def health(self, service=""):
        """Name of the status that the health service tells."""
        request = health_pb2.HealthCheckRequest(service=service)
        status = health_pb2_grpc.HealthStub(self.channel).Check(request, timeout=PATIENCE_S).status
        return health_pb2.HealthCheckResponse.ServingStatus.Name(status)

    def statistics(self, model):
        """What a model did so far."""
        return self.control("ModelStatistics", name=model).model_stats[0]

    @contextlib.contextmanager
    def busy_worker(self, executions=100, model="steps", slow_steps=SLOW_STEPS):
        """Keep the worker of a model busy, with whatever is sent meanwhile queued behind.

        The server must gather GROUP_ROWS rows. Gives the call that keeps it busy.
        """
        before = self.statistics(model).execution_count
        steps = np.full((SLICE_ROWS * (1 + executions), 1), slow_steps)
        steps[:SLICE_ROWS] = 0
        call = self.infer_later(self.message(model, steps=steps))
        try:
            # Its first execution is done, so the others hold the worker.
            wait_until(
                lambda: self.statistics(model).execution_count > before, "the worker is busy"
            )
            yield call
        finally:
            call.cancel()


class Process:
    """A server process: where it listens, what it said."""

    def __init__(self, models, *options, address="127.0.0.1:0", validation=False, before=()):
        """`before`: words of a command that runs the server."""
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        command = [*before, sys.executable, "-m", "server"]
        command += ["--models", models, "--address", address]
        if not validation:
            command += ["--validation", "off"]
        self.popen = subprocess.Popen(
            [str(word) for word in (*command, *options)],
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=ROOT,
        )
        self.first_line = self.popen.stdout.readline()
        self.address = self.first_line.removeprefix("listening on ").strip()

    def stop(self, number=signal.SIGTERM):
        """Send a signal; the exit code."""
        self.popen.send_signal(number)
        return self.wait()

    def freeze(self):
        """Stop the process until SIGCONT; returns once all its threads stand still."""
        self.popen.send_signal(signal.SIGSTOP)
        threads = Path(f"/proc/{self.popen.pid}/task")
        wait_until(
            lambda: all(
                # The name before it may hold anything.
                (thread / "stat").read_text().rpartition(")")[2].split()[0] == "T"
                for thread in threads.iterdir()
            ),
            "all threads stand still",
        )

    def wait(self):
        """Return the exit code once the process ended."""
        return self.popen.wait(PATIENCE_S)

    def said(self):
        """Lines on stderr."""
        self._log.seek(0)
        return self._log.read().splitlines()

    def close(self):
        """End the process if it still runs."""
        if self.popen.poll() is None:
            self.popen.kill()
            self.popen.wait()
        self.popen.stdout.close()
        self._log.close()


class Graphs:
    """Writes small ONNX models into a repository."""

    def __init__(self, folder):
        self.folder = folder

    def add(self, name, nodes, inputs, outputs, constants=None, version=1):
        """Write a graph; values are given as `name=(dtype, shape)`, constants as arrays."""
        graph = helper.make_graph(
            nodes,
            name,
            [_value(name, *what) for name, what in inputs.items()],
            [_value(name, *what) for name, what in outputs.items()],
            [onnx.numpy_helper.from_array(a, name) for name, a in (constants or {}).items()],
        )
        model = helper.make_model(
            graph, ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)]
        )
        onnx.checker.check_model(model, full_check=True)
        path = self.folder / name / str(version) / "model.onnx"
        path.parent.mkdir(parents=True)
        path.write_bytes(model.SerializeToString())
        return path

    def add_steps(self, name="steps"):
        """Add a model that counts to the largest of its rows, and gives them back.

        That the count changes no row is more than the server can see, so it is told to batch.
        """
        body = helper.make_graph(
            [
                helper.make_node("Identity", ["go_on"], ["still"]),
                helper.make_node("Add", ["count", "one"], ["next"]),
            ],
            "body",
            [_value("i", "int64", []), _value("go_on", "bool", []), _value("count", "int64", [])],
            [_value("still", "bool", []), _value("next", "int64", [])],
        )
        self.add(
            name,
            [
                helper.make_node("ReduceMax", ["steps"], ["most"], keepdims=0),
                helper.make_node("Loop", ["most", "", "zero"], ["counted"], body=body),
                helper.make_node("Sub", ["steps", "most"], ["rest"]),
                helper.make_node("Add", ["rest", "counted"], ["done"]),
            ],
            {"steps": ("int64", ["batch", 1])},
            {"done": ("int64", ["batch", 1])},
            {"zero": np.int64(0), "one": np.int64(1)},
        )
        (self.folder / name / "config.pbtxt").write_text(STEPS_CONFIG)


def _value(name, dtype, shape):
    element = (
        TensorProto.STRING
        if dtype == "string"
        else helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    )
    return helper.make_tensor_value_info(name, element, shape)


@pytest.fixture(scope="session")
def eventually():
    """Return the function that waits for a condition."""
    return wait_until


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    """Return an empty repository to write models into."""
    return Graphs(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def serve():
    """Start servers in this process, each on a free port unless told otherwise."""
    servers = []

    def start(models, **options):
        # Each model that is tried first takes longer to load.
        defaults = {"address": "127.0.0.1:0", "validation": False, **TRANSPORT}
        servers.append(Server(Config(models=models, **defaults | options)))
        return servers[-1]

    yield start
    if servers:
        # Each waits a moment for the last calls, so all wait at once.
        with ThreadPoolExecutor(len(servers)) as pool:
            list(pool.map(Server.drain, servers))


@pytest.fixture(scope="module")
def call():
    """Make callers of an address."""
    with contextlib.ExitStack() as stack:

        def connect(address):
            caller = Caller(address)
            stack.callback(caller.channel.close)
            return caller

        yield connect


@contextlib.contextmanager
def _launcher():
    with contextlib.ExitStack() as stack:

        def start(models, *options, **more):
            process = Process(models, *options, **more)
            stack.callback(process.close)
            return process

        yield start


@pytest.fixture
def refusal(capsys):
    """Return the function that starts a server which cannot start, in this process.

    It takes options as the command line does; the one line that says why.
    """

    def start(*options):
        with pytest.raises((StartError, SystemExit)) as caught:
            Server(arguments.parse(list(map(str, options)), os.environ))
        text = str(caught.value)
        if caught.type is SystemExit:
            assert caught.value.code == 2
            text = capsys.readouterr().err
        (line,) = text.splitlines()
        return line.removeprefix("argmax-server: error: ")

    return start


@pytest.fixture
def launch():
    """Start servers as processes of their own."""
    with _launcher() as start:
        yield start


@pytest.fixture(scope="module")
def launch_for_module():
    """Start servers as processes that all tests of a module share."""
    with _launcher() as start:
        yield start


@pytest.fixture(scope="session")
def run_script():
    """Run a script that uses `script_report`; a function from a step's name to its value.

    That function raises AssertionError with what the script caught when the step failed.
    """

    def run(path, *arguments):
        # What the scripts share lies beside this file.
        # The project comes first: folders of tests have the names of its packages.
        shared = [str(ROOT), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
        done = subprocess.run(
            [sys.executable, path, *arguments],
            stdout=subprocess.PIPE,
            timeout=100,
            check=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, shared))},
        )
        outcomes = json.loads(done.stdout)

        def value(step):
            outcome = outcomes[step]
            assert "error" not in outcome, outcome["error"]
            return outcome["value"]

        return value

    return run
