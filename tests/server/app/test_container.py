"""The server in a container: process 1, read-only, a user without a name, nothing in its way."""

import signal
import subprocess
import sys

import containers
import grpc
import numpy as np
import psutil
import pytest
from conftest import PATIENCE_S, ROOT

from command_line.resources import cores
from model.export import export
from model.weights import from_seed
from protos import inference_pb2 as pb

CLASSES, FEATURES = 4, 8
READ_BY_ALL = 0o755

pytestmark = pytest.mark.skipif(bool(containers.why_not()), reason=str(containers.why_not()))


@pytest.fixture(scope="module")
def models(graphs):
    export(graphs.folder, "linear", from_seed(CLASSES, FEATURES, 0), "float32", 0)
    graphs.folder.chmod(READ_BY_ALL)
    return graphs.folder


@pytest.fixture
def contained(launch, models, tmp_path):
    """Start a server in a container; the process, and the server's own."""

    def start(*options, folder=models):
        before = containers.command(folder, tmp_path)
        process = launch(containers.MODELS, *options, before=before, validation=True)
        server = containers.process_1(psutil.Process(process.popen.pid))
        assert server is not None, process.said()
        return process, server

    return start


@pytest.fixture
def endless(graphs, tmp_path_factory):
    """A repository with a model whose warm-up does not end."""
    folder = tmp_path_factory.mktemp("endless")
    folder.chmod(READ_BY_ALL)
    export(folder, "endless", from_seed(CLASSES, FEATURES, 0), "float32", 0)
    sample = 'name: "s" count: 2000000000 inputs { key: "x" value { dims: 8 zero_data: true } }'
    (folder / "endless" / "config.pbtxt").write_text(f"model_warmup {{ {sample} }}")
    return folder


def label(caller):
    message = caller.message("linear", x=np.ones((1, FEATURES), np.float32))
    return int(caller.infer(message).outputs[0].data[0])


def zombies(server):
    return [each.pid for each in server.children() if each.status() == psutil.STATUS_ZOMBIE]


def test_it_starts_serves_reloads_and_drains_with_nothing_to_write_to(contained, call):
    process, server = contained("--model-control", "explicit", "--load-model", "*")
    assert server.uids().real == containers.UID
    assert "HOME" not in server.environ()
    caller = call(process.address)
    before = label(caller)
    for _ in range(2):
        caller.control("RepositoryModelLoad", model_name="linear")
    assert label(caller) == before
    # Each load was tried in a process of its own.
    assert zombies(server) == []
    server.send_signal(signal.SIGTERM)
    assert process.wait() == 0
    assert '"stopped"' in process.said()[-1]


def test_without_dev_shm_shared_memory_is_refused_and_requests_are_answered(contained, call):
    process, server = contained()
    caller = call(process.address)
    request = pb.SystemSharedMemoryRegisterRequest(name="r", key="/k", byte_size=8)
    with pytest.raises(grpc.RpcError) as refused:
        caller.raw("SystemSharedMemoryRegister", request.SerializeToString())
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.value.details() == "there is no shared memory with that key"
    assert label(caller) in range(CLASSES)
    server.send_signal(signal.SIGTERM)
    assert process.wait() == 0


def caught(pid):
    """Whether the process has a handler for SIGTERM."""
    with open(f"/proc/{pid}/status") as status:
        (signals,) = (line.split()[1] for line in status if line.startswith("SigCgt"))
    return bool(int(signals, 16) >> (signal.SIGTERM - 1) & 1)


@pytest.fixture
def starting():
    """Start a server, alone or as process 1; the one to wait for, and the server's process."""
    started = []

    def start(models, *options, alone):
        before = () if alone else ("unshare", "--pid", "--fork", "--kill-child")
        words = ("--models", models, "--address", "127.0.0.1:0", *options)
        process = subprocess.Popen(
            [*before, sys.executable, "-m", "server", *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        started.append(process)
        outer = psutil.Process(process.pid)
        return process, (lambda: outer) if alone else (lambda: containers.process_1(outer))

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "process 1"])
def test_a_signal_while_it_imports_ends_it_with_0(starting, eventually, models, alone, number):
    process, find = starting(models, alone=alone)
    server = eventually(find, "the server's process is there")
    eventually(lambda: caught(server.pid), "it has a handler")
    server.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out) == (0, "")
    assert err == f"argmax-server: stopped by {number.name} before it served\n"


def test_what_takes_long_to_import_comes_after_the_handlers():
    code = "import sys, server.__main__; print(*sys.modules)"
    imported = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).split()
    assert "server.app.process.stop_signals" in imported
    assert not {"argparse", "grpc", "logging", "numpy", "onnxruntime"} & set(imported)


@pytest.mark.parametrize("validation", ["on", "off"])
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "process 1"])
def test_a_signal_while_models_are_loaded_ends_it_with_0(
    starting, eventually, endless, alone, validation
):
    options = ("--validation", validation, "--threads", cores() + 1)
    process, find = starting(endless, *options, alone=alone)
    server = eventually(find, "the server's process is there")
    # The last that it says before it loads.
    assert "--threads: got " in process.stderr.readline()
    trials = eventually(server.children, "the model is tried") if validation == "on" else []
    server.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out) == (0, "")
    assert err.splitlines()[-1] == "argmax-server: stopped by SIGTERM before it served"
    eventually(lambda: not any(map(runs, trials)), "the trial has ended")


def runs(process):
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
