"""The settings of a load, and how it reports progress."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from client.connection.credentials import CredentialFiles
from measure.engine.arrivals import Arrivals
from measure.engine.windows import Window
from measure.engine.worker_job import Mode
from measure.load.ramp import Ramp
from measure.load.schedule_file import ScheduleFile
from measure.load.summary import Asked, LoadPoint
from transport.calling.resolving import Resolving
from transport.calling.servers import Policy


@dataclass(frozen=True, slots=True)
class Windows:
    """How long to measure: a warm-up, then windows until three agree, at most `most`.

    A window is `seconds` long, and longer until `requests` of it have ended.
    """

    warm_up_s: float
    seconds: float
    requests: int
    most: int


@dataclass(frozen=True, slots=True)
class Settings:
    """The target of a load, and its points.

    `address` None: a local server, with the model of classes, features, dtype and seed. Each of
    `concurrencies` is a closed loop, each of `rates_per_s` an open one. Every process that connects
    to the server reads `credential_files`. A `ramp` or a `schedule` takes the place of these loops.
    `goodput_ms` is the bound of goodput, `server_metrics` the URL of the server's metrics, several
    separated by commas, `export` the file for a line of each request. `balance` and `resolve_s` are
    for several servers.
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
    credential_files: CredentialFiles
    balance: Policy = "least_requests"
    resolve_s: float = Resolving().every_s
    ramp: Ramp | None = None
    schedule: ScheduleFile | None = None
    goodput_ms: float | None = None
    server_metrics: str | None = None
    export: Path | None = None


def asked(settings: Settings) -> Iterator[Asked]:
    """The points that the settings describe, mode by mode."""
    for mode in settings.modes:
        if settings.ramp is not None:
            yield from _parts(settings, mode, settings.ramp)
        if settings.schedule is not None:
            yield _replay(settings, mode, settings.schedule)
        for concurrency in settings.concurrencies:
            yield Asked("closed", mode, settings.rows, settings.processes, concurrency=concurrency)
        for rate_per_s in settings.rates_per_s:
            yield open_loop(settings, mode, rate_per_s)


def _parts(settings: Settings, mode: Mode, ramp: Ramp) -> Iterator[Asked]:
    """The points of a ramp, one for each of its parts."""
    for stage in ramp.stages:
        if ramp.loop == "closed":
            level = Asked(
                *("closed", mode, settings.rows, settings.processes), concurrency=int(stage.mean)
            )
        else:
            level = open_loop(settings, mode, stage.mean)
        yield replace(level, ramp=ramp.text)


def _replay(settings: Settings, mode: Mode, schedule: ScheduleFile) -> Asked:
    return Asked(
        "open",
        mode,
        settings.rows,
        settings.processes,
        rate_per_s=schedule.rate_per_s,
        arrivals="schedule",
        schedule=schedule.text,
    )


def open_loop(settings: Settings, mode: Mode, rate_per_s: float) -> Asked:
    """Make a point of an open loop."""
    return Asked(
        "open",
        mode,
        settings.rows,
        settings.processes,
        rate_per_s=rate_per_s,
        arrivals=settings.arrivals,
    )


@dataclass(frozen=True, slots=True)
class Progress:
    """A preparation step, a finished window, or the point that it completes."""

    text: str
    window: Window | None = None
    point: LoadPoint | None = None


Report = Callable[[Progress], None]


def collecting(points: list[LoadPoint], report: Report) -> Report:
    """Report that stores each point before showing it, so that a signal loses no shown point."""

    def keep(step: Progress) -> None:
        if step.point is not None:
            points.append(step.point)
        report(step)

    return keep
