"""Measure a server under load: so many requests under way, or so many a second."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from client import environment, own_server
from client.arrivals import Arrivals
from client.client import READY_TIMEOUT_S, Client, ModelInput
from client.errors import RequestFailed, UsageError
from client.load_job import Job, Mode
from client.load_processes import LoadProcesses, load_processes
from client.load_slice import Slice
from client.load_summary import Asked, LoadPoint, Window, is_stable, summarise, window_of
from client.server_process import running_server
from client.traffic import Pace
from client.verification import Experiment, truth
from protos.quantize import WIRE_DTYPES

# Windows of so many requests are made of pieces that long.
_PIECE_S = 0.1
# Rows that are sent in turn, so that no request finds all of the one before in a cache.
_MOST_REQUESTS, _MOST_DATA_BYTES = 16, 64 * 2**20


@dataclass(frozen=True, slots=True)
class Windows:
    """How long to measure: a warm-up, then windows until three agree, but no more than `most`.

    A window is `seconds` long, and longer until `requests` of it have ended.
    """

    warm_up_s: float
    seconds: float
    requests: int
    most: int


@dataclass(frozen=True, slots=True)
class Settings:
    """What to load, with what.

    `address` None: a server of one's own, with the model of classes, features, dtype and seed.
    Each of `concurrencies` is a closed loop, each of `rates_per_s` an open one.
    """

    address: str | None
    model: str
    version: str
    modes: tuple[Mode, ...]
    rows: int
    concurrencies: tuple[int, ...]
    rates_per_s: tuple[float, ...]
    arrivals: Arrivals
    processes: int
    windows: Windows
    timeout_s: float
    classes: int
    features: int
    dtype: str
    seed: int
    threads: int
    ep: str
    out: Path


@dataclass(frozen=True, slots=True)
class Target:
    """Where to send to; `experiment` None: right labels are not known, for the reason told."""

    address: str
    examples: int
    experiment: Experiment | None
    unchecked_because: str | None


@dataclass(frozen=True, slots=True)
class Progress:
    """A preparation, a window that ended, or the point that it completed."""

    text: str
    window: Window | None = None
    point: LoadPoint | None = None


Report = Callable[[Progress], None]


def asked(settings: Settings) -> Iterator[Asked]:
    """Points that settings ask for, mode by mode."""
    for mode in settings.modes:
        for concurrency in settings.concurrencies:
            yield Asked("closed", mode, settings.rows, settings.processes, concurrency=concurrency)
        for rate_per_s in settings.rates_per_s:
            yield open_loop(settings, mode, rate_per_s)


def open_loop(settings: Settings, mode: Mode, rate_per_s: float) -> Asked:
    """Point of an open loop."""
    return Asked(
        "open",
        mode,
        settings.rows,
        settings.processes,
        rate_per_s=rate_per_s,
        arrivals=settings.arrivals,
    )


def load(settings: Settings, target: Target, report: Report) -> list[LoadPoint]:
    """Measure all points that settings ask for.

    A point that ended with nothing but failed requests is the last: the server is gone, and what
    was measured before is kept.
    """
    points: list[LoadPoint] = []
    for mode in settings.modes:
        report(Progress(f"{mode}: connecting"))
        with loading(settings, target, mode) as processes:
            for one in (one for one in asked(settings) if one.mode == mode):
                points.append(measure(processes, one, settings, target, report))
                if points[-1].errors and not points[-1].windows[-1].rate_per_s:
                    return points
    return points


@contextlib.contextmanager
def loading(settings: Settings, target: Target, mode: Mode) -> Iterator[LoadProcesses]:
    """Start processes that send in one mode."""
    job = Job(
        target.address,
        settings.model,
        settings.version,
        mode,
        settings.rows,
        target.examples,
        settings.seed,
        settings.timeout_s,
        target.experiment,
    )
    with load_processes(job, settings.processes) as processes:
        yield processes


def measure(
    processes: LoadProcesses, one: Asked, settings: Settings, target: Target, report: Report
) -> LoadPoint:
    """Measure one point. Every window after the warm-up counts, not only those that agree."""
    windows = settings.windows
    start = environment.snapshot()
    slice_s = min(windows.seconds, _PIECE_S) if windows.requests else windows.seconds
    slices = processes.slices(_paces(one, settings.seed), windows.warm_up_s, slice_s)
    warm_up = next(slices)
    # A server that answers nothing from the beginning is not waited for.
    seen = [warm_up] if _fails(warm_up) else []
    while not seen or not _over(seen, windows):
        window = slices.send(False)
        while windows.requests and not _full(window, settings):
            window.add(slices.send(False))
        seen.append(window)
        report(Progress(_name(one), window=window_of(window)))
    last = slices.send(True)
    slices.close()
    steal = environment.steal_fraction(start, environment.snapshot())
    known = target.experiment is not None
    point = summarise(one, seen, last, labels_known=known, steal=steal)
    report(Progress(_name(one), point=point))
    return point


def _over(seen: Sequence[Slice], windows: Windows) -> bool:
    stable = is_stable([window_of(window) for window in seen])
    return _fails(seen[-1]) or stable or len(seen) >= windows.most


def _fails(window: Slice) -> bool:
    """Whether there was nothing but errors."""
    return window.errors.total() > 0 and not window.answered


def _full(window: Slice, settings: Settings) -> bool:
    elapsed_s, wanted = window.elapsed_ns / 1e9, settings.windows
    enough = window.answered + window.errors.total() >= wanted.requests
    # A server that has stopped answering is not waited for longer than one request is.
    return elapsed_s >= wanted.seconds and (enough or elapsed_s >= settings.timeout_s)


def _paces(one: Asked, seed: int) -> list[Pace]:
    parts = one.processes
    if one.rate_per_s is not None:
        arrivals: Arrivals = "poisson" if one.arrivals == "poisson" else "constant"
        return [Pace(None, one.rate_per_s, arrivals, seed, part, parts) for part in range(parts)]
    whole, rest = divmod(one.concurrency or 0, parts)
    return [Pace(whole + (part < rest), part=part, parts=parts) for part in range(parts)]


def _name(one: Asked) -> str:
    if one.rate_per_s is None:
        return f"{one.mode}, closed loop, concurrency {one.concurrency}"
    return f"{one.mode}, open loop, {one.rate_per_s:g} requests/s"


@contextlib.contextmanager
def target(settings: Settings, report: Report) -> Iterator[Target]:
    """Where to send to: the server that was given, or one of one's own while the block runs.

    UsageError or RequestFailed when there is none that can be loaded.
    """
    with contextlib.ExitStack() as stack:
        if settings.address is None:
            experiment = Experiment(
                settings.classes, settings.features, settings.dtype, settings.seed
            )
            experiment = replace(
                experiment, examples=_examples(settings.rows, experiment.row_bytes)
            )
            report(Progress("exporting the model"))
            own_server.export(experiment, settings.model, settings.out / "models")
            report(Progress("starting the server"))
            options = own_server.options(
                experiment, (settings.rows,), settings.threads, settings.ep, whole=True
            )
            server = stack.enter_context(running_server(settings.out / "models", list(options)))
            yield Target(server.address, experiment.examples, experiment, None)
            return
        with Client(settings.address, settings.model, settings.version) as client:
            client.wait_until_ready(READY_TIMEOUT_S)
            spec = client.input()
            report(Progress("looking for the right labels"))
            examples = _examples(settings.rows, spec.row_bytes)
            experiment_or_why = _known(client, spec, settings, examples)
        if isinstance(experiment_or_why, str):
            yield Target(settings.address, examples, None, experiment_or_why)
        else:
            yield Target(settings.address, examples, experiment_or_why, None)


def _examples(rows: int, row_bytes: int) -> int:
    requests = _MOST_DATA_BYTES // max(rows * row_bytes, 1)
    return rows * min(max(requests, 1), _MOST_REQUESTS)


def _known(client: Client, spec: ModelInput, settings: Settings, examples: int) -> Experiment | str:
    """What the served model's right labels are known by, or why they are not."""
    try:
        told = client.config().parameters["weights_sha256"].string_value
    except RequestFailed as error:
        told = ""
        if error.code not in ("UNIMPLEMENTED", "NOT_FOUND"):
            raise
    if not told or len(spec.row_shape) != 1 or spec.row_shape[0] < 1:
        return "the server does not tell the weights of a linear model"
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
    if weights_sha256 != told:
        return (
            "the server's model has other weights than "
            f"--classes {settings.classes} --seed {settings.seed} give"
        )
    return experiment
