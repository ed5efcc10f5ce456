"""Export the models and run this service, the way every measurement here needs it."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from client.client import Client
from client.connection.channel import MAX_MESSAGE_BYTES
from client.errors import UsageError
from measure.core.local_server import ServerProcess, running_server
from measure.core.processes import SOURCE
from measure.core.verification import Experiment, Truth
from measure.peers.peer_servers import MODEL
from measure.peers.systems import InProcess, System
from measure.sweep.modes import Shm, Stream, Unary

MIB = 2**20
_READY_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Settings:
    """What to measure, and how often; `peers` are names of those compared with."""

    experiment: Experiment
    batch_sizes: tuple[int, ...]
    rounds: int
    threads: int
    peers: tuple[str, ...]
    memory_streams: int
    out: Path


def export(settings: Settings, folder: Path, *options: str, name: str = MODEL) -> Path:
    """Write the model below `folder`; its graph. UsageError in the exporter's words."""
    experiment = settings.experiment
    command = [sys.executable, "-m", "model", "export", "--out", str(folder.resolve())]
    command += ["--name", name, "--seed", str(experiment.seed), *options]
    command += ["--classes", str(experiment.classes), "--features", str(experiment.features)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=SOURCE, check=False)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise UsageError(f"the model could not be exported: {said[-1]}")
    return folder.resolve() / name / "1" / "model.onnx"


def options(settings: Settings) -> list[str]:
    """Options with room for the largest batch as one message."""
    largest = max(settings.batch_sizes)
    message_bytes = min(largest * settings.experiment.features * 4 + MIB, MAX_MESSAGE_BYTES)
    return [
        *("--max-message-bytes", str(max(message_bytes, 128 * MIB))),
        # perf_analyzer keeps two requests under way.
        *("--max-inflight-bytes", str(max(2 * message_bytes, 256 * MIB))),
        *("--max-batch-rows", str(max(largest, 1024))),
        *("--threads", str(settings.threads)),
    ]


@contextmanager
def serving(models: Path, settings: Settings, extra: Sequence[str] = ()) -> Iterator[ServerProcess]:
    """A server of `models` for the time of the block."""
    with running_server(models, [*options(settings), *extra]) as server:
        yield server


@contextmanager
def connected(address: str, model: str = MODEL) -> Iterator[Client]:
    """A client of a server that is ready."""
    with Client(address, model) as client:
        client.wait_until_ready(_READY_TIMEOUT_S)
        yield client


def service_systems(stack: ExitStack, address: str, truth: Truth) -> list[System]:
    """The three ways to this service, all to the server at `address`."""
    client = stack.enter_context(connected(address))
    modes = (Unary(client), Stream(client), Shm(client, truth.x))
    for mode in modes:
        stack.callback(mode.close)
    return [InProcess(mode.name, "service", mode, truth.x) for mode in modes]
