"""Run this service with the settings that all measurements share."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from client.client import Client
from measure.core.local_server import ServerProcess, options, running_server
from measure.core.verification import Experiment, Truth
from measure.engine.worker_job import Job
from measure.peers.peer_servers import MODEL
from measure.peers.systems import InProcess, System
from measure.sweep.modes import Shm, Stream, Unary

MIB = 2**20
_READY_TIMEOUT_S = 30.0
_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Settings:
    """What to measure, and how often; `peers` are the names of the other servers."""

    experiment: Experiment
    batch_sizes: tuple[int, ...]
    rounds: int
    threads: int
    peers: tuple[str, ...]
    memory_streams: int
    out: Path


@contextmanager
def serving(models: Path, settings: Settings, extra: Sequence[str] = ()) -> Iterator[ServerProcess]:
    """A server of `models`, with room for the largest batch, while the block lasts."""
    room = options(settings.experiment, settings.batch_sizes, settings.threads, "cpu", whole=True)
    with running_server(models, [*room, *extra]) as server:
        yield server


@contextmanager
def connected(address: str, model: str = MODEL) -> Iterator[Client]:
    """A client of a server that is ready."""
    with Client(address, model) as client:
        client.wait_until_ready(_READY_TIMEOUT_S)
        yield client


def single_rows(address: str, experiment: Experiment) -> Job:
    """Requests of one row each, of the experiment's examples in turn."""
    return Job(
        address,
        MODEL,
        version="",
        mode="unary",
        rows=1,
        examples=experiment.examples,
        seed=experiment.seed,
        timeout_s=_TIMEOUT_S,
        experiment=experiment,
        timings=False,
    )


def service_systems(stack: ExitStack, address: str, truth: Truth) -> list[System]:
    """This service's three modes, all to the server at `address`."""
    client = stack.enter_context(connected(address))
    modes = (Unary(client), Stream(client), Shm(client, truth.x))
    for mode in modes:
        stack.callback(mode.close)
    return [InProcess(mode.name, "service", mode, truth.x) for mode in modes]
