"""Measure latency and throughput of every mode at every batch size."""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from client.client import READY_TIMEOUT_S, Client
from client.connection.channel import RetryPolicy
from client.connection.credentials import Credentials
from client.errors import RequestFailed, UsageError
from client.model_input import ModelInput
from measure.core import local_server
from measure.core.local_server import ServerProcess, running_server
from measure.core.stages import Sample
from measure.core.verification import Experiment, Truth, check, truth
from measure.servers.beside import Beside, Observed
from measure.servers.replicas import Replica, connected, naming, replicas_of
from measure.sweep.modes import Local, Mode, Shm, Stream, StreamInTurn, Unary
from measure.sweep.shares import with_shares
from measure.sweep.summary import Point, summarise
from protos.quantize import DEFAULT_SCALE
from transport.calling.resolving import Resolving
from transport.calling.servers import POLICIES, Policy

MODES = ("local", "unary", "stream", "shm")
DEFAULT_MODES = ("local", "unary", "stream")
MODEL = "linear_argmax"
# Rows per execution in local mode, the same that the server runs of a large request.
LOCAL_SLICE_ROWS = 128
# Do not wait for a server that is too busy to report its statistics.
_STATISTICS_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Settings:
    """What to measure.

    Each batch size is measured with at least `repeats` batches, and with enough to predict every
    example once. `address` None: a local server. `with_scale` sets the value of an int8 step, if
    the experiment's wire dtype is int8. `ep` is the execution provider, in this process and in a
    local server, as the server's --ep. `balance` and `resolve_s` are for several servers.
    """

    experiment: Experiment
    batch_sizes: tuple[int, ...]
    modes: tuple[str, ...]
    repeats: int
    threads: int
    address: str | None
    out: Path
    ep: str = "cpu"
    credentials: Credentials = field(default_factory=Credentials)
    balance: Policy = POLICIES[0]
    resolve_s: float = Resolving().every_s

    def client(self, address: str) -> Client:
        """A client of the server, or of several that share the requests."""
        return Client(
            address,
            MODEL,
            credentials=self.credentials,
            balance=self.balance,
            resolving=Resolving(self.resolve_s),
        )

    def client_of(self, replica: Replica, *, deadline_s: float | None = None) -> Client:
        """A client of one of the servers, which does not retry if there is a deadline."""
        retry = None if deadline_s is None else RetryPolicy(attempts=1)
        return connected(replica, MODEL, "", self.credentials, deadline_s=deadline_s, retry=retry)


@dataclass(frozen=True, slots=True)
class Progress:
    """A step that begins, or one that ended with a `point`; a preparation measures nothing."""

    text: str
    done: int
    total: int
    point: Point | None = None
    preparation: bool = False


def sweep(settings: Settings, report: Callable[[Progress], None]) -> Iterator[Point]:
    """Measure all points, batch size by batch size with the modes in turn, and yield each.

    Taking the modes in turn at each batch size spreads a drift of the machine over all of them.
    Failed requests become errors of their point; UsageError if nothing can be measured.
    """
    total = len(settings.batch_sizes) * len(settings.modes)
    if settings.address is not None and set(settings.modes) - {"local"}:
        # Fail on a wrong address now, not after computing the reference.
        with settings.client(settings.address) as client:
            client.check_reachable()
    with ExitStack() as stack:
        if settings.address is None or "local" in settings.modes:
            report(Progress("exporting the model", 0, total, preparation=True))
            graph = local_server.export(settings.experiment, MODEL, settings.out / "models")
        report(Progress("computing the float64 reference", 0, total, preparation=True))
        reference = truth(settings.experiment)
        server: ServerProcess | None = None
        replicas: tuple[Replica, ...] = ()
        modes: list[Mode] = []
        if set(settings.modes) - {"local"}:
            address = settings.address
            if address is None:
                report(Progress("starting the server", 0, total, preparation=True))
                options = local_server.options(
                    settings.experiment,
                    settings.batch_sizes,
                    settings.threads,
                    settings.ep,
                    whole="unary" in settings.modes,
                )
                server = stack.enter_context(running_server(settings.out / "models", list(options)))
                address = server.address
            client = stack.enter_context(settings.client(address))
            client.wait_until_ready(READY_TIMEOUT_S)
            replicas = replicas_of(address)
            alone = [stack.enter_context(settings.client_of(each)) for each in replicas]
            for each, one in zip(replicas, alone, strict=True):
                with naming(each, replicas):
                    check_model(one, settings.experiment, reference)
        makers: dict[str, Callable[[], Mode]] = {
            "local": lambda: Local(graph, settings.threads, LOCAL_SLICE_ROWS, settings.ep),
            "unary": lambda: Unary(client),
            "stream": lambda: _stream(client, alone, replicas),
            "shm": lambda: Shm(client, reference.x),
        }
        for name in settings.modes:
            modes.append(makers[name]())
            stack.callback(modes[-1].close)
        beside = _beside(stack, settings, replicas)
        steps = itertools.product(settings.batch_sizes, modes)
        for done, (batch_size, mode) in enumerate(steps):
            report(Progress(f"{mode.name}, batch size {batch_size}", done, total))
            point = _measure(mode, batch_size, reference, settings.repeats, server, beside)
            # A point is stored before it is shown.
            yield point
            report(Progress(f"{mode.name}, batch size {batch_size}", done + 1, total, point))


def with_scale(settings: Settings) -> Settings:
    """Settings with the scale of int8 on the wire: the server's, or a local model's.

    Raises UsageError if the server reports none.
    """
    experiment = settings.experiment
    if experiment.wire != "int8":
        return settings
    scale: float | None = DEFAULT_SCALE
    if settings.address is not None and set(settings.modes) - {"local"}:
        with settings.client(settings.address) as client:
            client.check_reachable()
            spec = _input(client)
        scale = spec.scale
        if scale is None:
            raise UsageError(
                f"the server's model takes {spec.dtype} and has no wire_scale; "
                "--wire int8 needs a model exported with --wire int8"
            )
    return replace(settings, experiment=replace(experiment, wire_scale=scale))


def _stream(client: Client, alone: Sequence[Client], replicas: Sequence[Replica]) -> Mode:
    """The mode `stream`; a stream stays with its server, so each of several gets one."""
    if len(replicas) == 1:
        return Stream(client)
    return StreamInTurn([Stream(one, each.name) for one, each in zip(alone, replicas, strict=True)])


def _beside(stack: ExitStack, settings: Settings, replicas: Sequence[Replica]) -> Beside:
    """What reads the statistics of several servers beside each point."""
    if len(replicas) < 2:
        return Beside([], {MODEL})
    clients = [
        stack.enter_context(settings.client_of(each, deadline_s=_STATISTICS_TIMEOUT_S))
        for each in replicas
    ]
    observed = [Observed(each.name, one) for each, one in zip(replicas, clients, strict=True)]
    return Beside(observed, {MODEL})


def _measure(
    mode: Mode,
    batch_size: int,
    reference: Truth,
    repeats: int,
    server: ServerProcess | None,
    beside: Beside,
) -> Point:
    rows = len(reference.x)
    servers = 1 if mode.name == "local" else max(beside.servers, 1)
    batches = max(repeats, math.ceil(rows / batch_size), servers)
    # The first run of a shape pays for memory and packing, so it is not a sample, at each server.
    for _ in range(servers):
        run_batch(mode, batch_size, reference, 0)
    if server is not None:
        server.forget_peak_memory()
    starts = itertools.cycle(range(0, rows, batch_size))
    since = beside.now()
    samples = [
        run_batch(mode, batch_size, reference, start) for start in itertools.islice(starts, batches)
    ]
    peak = server.peak_memory_bytes() if server is not None and mode.name != "local" else None
    point = summarise(mode.name, batch_size, samples, peak)
    if servers == 1:
        return point
    return with_shares(point, samples, beside.between(since, beside.now()))


def run_batch(mode: Mode, batch_size: int, reference: Truth, start: int) -> Sample:
    """Predict a batch of the examples from `start` on; a failed request is its error."""
    # If the size does not divide the examples, the last batch overlaps the one before.
    start = max(0, min(start, len(reference.x) - batch_size))
    x = reference.x[start : start + batch_size]
    started_ns = time.perf_counter_ns()
    try:
        prediction = mode.predict(x)
    except RequestFailed as error:
        now_ns = time.perf_counter_ns()
        return Sample(
            mode.name,
            batch_size,
            started_ns,
            now_ns,
            now_ns,
            0,
            error=str(error),
            server=mode.call.server,
            lost=mode.call.lost,
        )
    found = check(reference, start, prediction.labels)
    times = prediction.times
    return Sample(
        mode.name,
        batch_size,
        started_ns,
        prediction.first_ns,
        prediction.done_ns,
        rows=len(prediction.labels),
        wrong_labels=found.wrong_labels,
        near_ties=found.near_ties,
        disagreements=found.disagreements,
        error=None if len(prediction.labels) == len(x) else "an answer lacks rows",
        stages=prediction.stages,
        messages=prediction.messages,
        send_ns=times.send_ns if times else None,
        receive_ns=times.receive_ns if times else None,
        server=mode.call.server,
        lost=mode.call.lost,
    )


def _input(client: Client) -> ModelInput:
    try:
        return client.input()
    except RequestFailed as error:
        raise UsageError(f"the server does not serve model {client.model!r}: {error}") from None


def check_model(client: Client, experiment: Experiment, reference: Truth) -> None:
    """Check that the server's model is the one whose labels are known."""
    spec = _input(client)
    wanted = ((experiment.features,), experiment.sent)
    if (spec.row_shape, str(spec.dtype)) != wanted:
        raise UsageError(
            f"the server's model takes rows of {list(spec.row_shape)} {spec.dtype}, "
            f"the sweep sends [{experiment.features}] {experiment.sent}: "
            "set --features, --dtype and --wire"
        )
    if spec.scale != experiment.wire_scale:
        raise UsageError(
            f"got wire_scale {spec.scale} from the server, expected {experiment.wire_scale}"
        )
    served_sha256 = client.told("weights_sha256")
    if served_sha256 and served_sha256 != reference.weights_sha256:
        raise UsageError(
            "the server's model has other weights than the reference: "
            "set --seed and --classes to those it was exported with"
        )
