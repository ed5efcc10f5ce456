"""Find or start the server to load, and the experiment that defines its expected labels."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from client.client import Client
from client.connection.channel import RetryPolicy
from client.errors import RequestFailed, UsageError
from client.model_input import ModelInput
from measure.core import local_server
from measure.core.local_server import running_server
from measure.core.verification import Experiment, truth
from measure.load.settings import Progress, Report, Settings
from measure.servers.replicas import Replica, connected, replicas_of
from protos.quantize import WIRE_DTYPES

# Rows rotate, so that no request finds all of the previous one in a cache.
_MOST_REQUESTS, _MOST_DATA_BYTES = 16, 64 * 2**20


@dataclass(frozen=True, slots=True)
class Target:
    """The server to load; `experiment` None: expected labels are unknown, for the given reason.

    `address` may stand for several, which are the `replicas`. `pid`: of a server that was started
    here, which may be observed.
    """

    address: str
    replicas: tuple[Replica, ...]
    examples: int
    experiment: Experiment | None
    unchecked_because: str | None
    pid: int | None = None


@contextlib.contextmanager
def target(settings: Settings, report: Report) -> Iterator[Target]:
    """The server to load: the given one, or a local one while the block runs.

    UsageError or RequestFailed if it cannot be loaded.
    """
    if settings.address is not None:
        yield _given(settings, settings.address, report)
        return
    report(Progress("exporting the model"))
    experiment = Experiment(settings.classes, settings.features, settings.dtype, settings.seed)
    experiment = replace(experiment, examples=_examples(settings.rows, experiment.row_bytes))
    local_server.export(experiment, settings.model, settings.out / "models")
    report(Progress("starting the server"))
    with own_target(settings, experiment) as found:
        yield found


@contextlib.contextmanager
def own_target(
    settings: Settings, experiment: Experiment, options: Sequence[str] = ()
) -> Iterator[Target]:
    """Serve the exported model while the block runs; `options` follow the usual ones."""
    usual = local_server.options(
        experiment, (settings.rows,), settings.threads, settings.ep, whole=True
    )
    with running_server(settings.out / "models", [*usual, *options]) as server:
        replicas = replicas_of(server.address)
        yield Target(server.address, replicas, experiment.examples, experiment, None, server.pid)


def _given(settings: Settings, address: str, report: Report) -> Target:
    credentials = settings.credential_files.read()
    replicas = replicas_of(address)
    with Client(address, settings.model, settings.version, credentials=credentials) as client:
        client.check_reachable()
        spec = client.input()
        report(Progress("looking for the right labels"))
        examples = _examples(settings.rows, spec.row_bytes)
        found = _known(client, spec, settings, examples)
    if isinstance(found, str) and len(replicas) > 1:
        found = _known_to_any(replicas, settings, examples) or found
    if isinstance(found, str):
        return Target(address, replicas, examples, None, found)
    return Target(address, replicas, examples, found, None)


def _known_to_any(
    replicas: Sequence[Replica], settings: Settings, examples: int
) -> Experiment | None:
    """The experiment of the first server whose model has the expected weights.

    Labels of the others then count as wrong: all are meant to serve the same.
    """
    credentials = settings.credential_files.read()
    for replica in replicas:
        with (
            contextlib.suppress(RequestFailed),
            connected(
                replica,
                settings.model,
                settings.version,
                credentials,
                retry=RetryPolicy(attempts=1),
            ) as client,
        ):
            found = _known(client, client.input(), settings, examples)
            if not isinstance(found, str):
                return found
    return None


def _examples(rows: int, row_bytes: int) -> int:
    requests = _MOST_DATA_BYTES // max(rows * row_bytes, 1)
    return rows * min(max(requests, 1), _MOST_REQUESTS)


def _known(client: Client, spec: ModelInput, settings: Settings, examples: int) -> Experiment | str:
    """The experiment that defines the served model's labels, or the reason that there is none."""
    try:
        served_sha256 = client.config().parameters["weights_sha256"].string_value
    except RequestFailed as error:
        served_sha256 = ""
        if error.code not in ("UNIMPLEMENTED", "NOT_FOUND"):
            raise
    if not served_sha256 or len(spec.row_shape) != 1 or spec.row_shape[0] < 1:
        return "the server does not report the weights of a linear model"
    narrow = spec.dtype.name in WIRE_DTYPES
    experiment = Experiment(
        settings.classes,
        spec.row_shape[0],
        np.dtype(np.float32).name if narrow else spec.dtype.name,
        settings.seed,
        examples,
        spec.dtype.name if narrow else None,
        spec.scale,
    )
    try:
        weights_sha256 = truth(replace(experiment, examples=1)).weights_sha256
    except UsageError as error:
        return str(error)
    if weights_sha256 != served_sha256:
        return (
            "the server's model has other weights than "
            f"--classes {settings.classes} --seed {settings.seed} give"
        )
    return experiment
