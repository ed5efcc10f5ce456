"""Install and start the peer servers."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from measure.core.processes import SOURCE, child, free_port, last_words
from measure.peers.environments import FOLDER, NotAvailable, Venv, installed

MODEL = "linear_argmax"
_SCRIPTS = SOURCE / "measure" / "peers" / "inside"
_START_TIMEOUT_S = 60.0
# The largest message length in gRPC.
_MAX_MESSAGE_BYTES = 2**31 - 1
# The same engine everywhere.
_ENGINE = f"onnxruntime=={metadata.version('onnxruntime')}"


@dataclass(frozen=True, slots=True)
class Work:
    """The settings of every server: the graph, its shape, threads and rows."""

    graph: Path
    classes: int
    features: int
    threads: int
    max_batch_rows: int


@dataclass(frozen=True, slots=True)
class Launch:
    """How to run a server on `port`."""

    command: tuple[str, ...]
    environment: dict[str, str]
    port: int


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer server: its packages, its command, whether it reads shared memory."""

    name: str
    requirements: tuple[str, ...]
    launch: Callable[[Venv, Work, Path], Launch]
    shared_memory: bool = False


def _plain_grpcio(venv: Venv, work: Work, folder: Path) -> Launch:
    return _script(venv, work, "plain_grpcio.py")


def _kserve(venv: Venv, work: Work, folder: Path) -> Launch:
    return _script(venv, work, "kserve_server.py")


def _script(venv: Venv, work: Work, script: str) -> Launch:
    port = free_port()
    command = (str(venv.python), str(_SCRIPTS / script), str(work.graph), str(port))
    return Launch((*command, str(work.threads)), {}, port)


def _mlserver(venv: Venv, work: Work, folder: Path) -> Launch:
    port = free_port()
    settings = {
        "host": "127.0.0.1",
        "grpc_port": port,
        "http_port": free_port(),
        "metrics_endpoint": None,
        "grpc_max_message_length": _MAX_MESSAGE_BYTES,
        # The model runs in the server's process: a second process would cost another copy.
        "parallel_workers": 0,
        "debug": False,
    }
    model = {
        "name": MODEL,
        "implementation": "mlserver_model.Linear",
        "parameters": {"extra": {"graph": str(work.graph), "threads": work.threads}},
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model))
    command = (str(venv.folder / "bin" / "mlserver"), "start", str(folder))
    return Launch(command, {"PYTHONPATH": str(_SCRIPTS)}, port)


def _triton(venv: Venv, work: Work, folder: Path) -> Launch:
    wheel = venv.packages / "pytriton" / "tritonserver"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = wheel / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.exists():
        raise NotAvailable(f"its Python backend has no stub for Python {version}")
    beside = wheel / "backends" / "python" / stub.name
    # A running executable cannot be overwritten, and another Triton may be running it.
    if not beside.exists():
        shutil.copy2(stub, beside)
    model = folder / "models" / MODEL
    (model / "1").mkdir(parents=True)
    shutil.copy2(_SCRIPTS / "triton_model.py", model / "1" / "model.py")
    shutil.copy2(_SCRIPTS / "session.py", model / "1")
    (model / "config.pbtxt").write_text(_triton_config(work))
    port = free_port()
    command = (
        str(wheel / "bin" / "tritonserver"),
        f"--model-repository={folder / 'models'}",
        f"--backend-directory={wheel / 'backends'}",
        "--allow-http=false",
        "--allow-metrics=false",
        "--grpc-address=127.0.0.1",
        f"--grpc-port={port}",
        "--disable-auto-complete-config",
    )
    libraries = [
        str(venv.packages / "nvidia_pytriton.libs"),
        str(sysconfig.get_config_var("LIBDIR")),
        os.environ.get("LD_LIBRARY_PATH", ""),
    ]
    environment = {
        "LD_LIBRARY_PATH": ":".join(filter(None, libraries)),
        # The stub's interpreter finds its packages only through the python3 on PATH.
        "PATH": f"{venv.folder / 'bin'}:{os.environ.get('PATH', '')}",
    }
    return Launch(command, environment, port)


def _triton_config(work: Work) -> str:
    parameters = {"graph": str(work.graph), "threads": str(work.threads)}
    parameter_text = "".join(
        f'parameters {{ key: "{key}" value {{ string_value: {json.dumps(value)} }} }}\n'
        for key, value in parameters.items()
    )
    return (
        f'name: "{MODEL}"\nbackend: "python"\nmax_batch_size: {work.max_batch_rows}\n'
        f'input {{ name: "x" data_type: TYPE_FP32 dims: [ {work.features} ] }}\n'
        'output { name: "label" data_type: TYPE_INT64 dims: [ 1 ] reshape { shape: [ ] } }\n'
        f'output {{ name: "scores" data_type: TYPE_FP32 dims: [ {work.classes} ] }}\n'
        f"instance_group {{ kind: KIND_CPU count: 1 }}\n{parameter_text}"
    )


PEERS = {
    peer.name: peer
    for peer in (
        Peer("triton", ("nvidia-pytriton==0.7.0", _ENGINE), _triton, shared_memory=True),
        Peer("plain_grpcio", ("tritonclient[grpc]==2.73.0", _ENGINE), _plain_grpcio),
        Peer("kserve", ("kserve==0.21.0", _ENGINE), _kserve),
        # Uses the most memory, so it comes last.
        Peer("mlserver", ("mlserver==1.7.1", _ENGINE), _mlserver),
    )
}


@contextlib.contextmanager
def running_peer(peer: Peer, work: Work) -> Iterator[str]:
    """Install `peer` if necessary and start it; yield its address once it listens.

    NotAvailable gives the reason; the server's output is in `.bench/run/NAME.log`.
    """
    venv = installed(peer.name, peer.requirements)
    folder = FOLDER / "run" / peer.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    launch = peer.launch(venv, work, folder)
    with (
        folder.with_suffix(".log").open("w+b") as log,
        child(
            launch.command, stdout=log, stderr=subprocess.STDOUT, environment=launch.environment
        ) as process,
    ):
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not _listens(launch.port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise NotAvailable(f"it did not start: {last_words(log)}")
            time.sleep(0.1)
        yield f"127.0.0.1:{launch.port}"


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
