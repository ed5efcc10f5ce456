"""Measure a server under load, at a fixed concurrency or a fixed rate."""

import contextlib
from collections.abc import Iterator, Sequence

from client.client import Client
from client.connection.channel import RetryPolicy
from measure.core import environment
from measure.engine.arrivals import Arrivals
from measure.engine.loop import Pace
from measure.engine.processes import LoadProcesses, load_processes
from measure.engine.slice import Slice
from measure.engine.windows import LoopKind, is_stable, window_of
from measure.engine.worker_job import Job, Mode
from measure.load.settings import Progress, Report, Settings, Windows, asked
from measure.load.split import statistics_of
from measure.load.summary import Asked, LoadPoint, summarise
from measure.load.target import Target

# Windows that last for a number of requests are built from slices of this length.
_PIECE_S = 0.25
# Do not wait for a server that is too busy to report its statistics.
_STATISTICS_TIMEOUT_S = 2.0


def load(settings: Settings, target: Target, report: Report) -> None:
    """Measure all points of the settings; each goes to `report`.

    A point with nothing but failed requests is the last: the server is gone, and the earlier points
    are kept.
    """
    for mode in settings.modes:
        report(Progress(f"{mode}: connecting"))
        with loading(settings, target, mode) as one_mode:
            for one in (one for one in asked(settings) if one.mode == mode):
                point = one_mode.measure(one, report)
                if point.errors and not point.windows[-1].rate_per_s:
                    return


@contextlib.contextmanager
def loading(settings: Settings, target: Target, mode: Mode) -> Iterator["Loading"]:
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
        settings.credential_files,
        balance=settings.balance,
        resolve_s=settings.resolve_s,
    )
    client = Client(
        target.address,
        settings.model,
        settings.version,
        deadline_s=_STATISTICS_TIMEOUT_S,
        retry=RetryPolicy(attempts=1),
        credentials=settings.credential_files.read(),
    )
    with client, load_processes(job, settings.processes) as processes:
        yield Loading(processes, client, settings, target.experiment is not None)


class Loading:
    """Connected load processes that measure a server point by point."""

    def __init__(
        self, processes: LoadProcesses, client: Client, settings: Settings, labels_known: bool
    ) -> None:
        self._processes = processes
        self._client = client
        self._settings = settings
        self._labels_known = labels_known

    def measure(self, one: Asked, report: Report) -> LoadPoint:
        """Measure one point. Every window after the warm-up counts, even if windows disagree."""
        windows = self._settings.windows
        start = environment.snapshot()
        slice_s = min(windows.seconds, _PIECE_S) if windows.requests else windows.seconds
        load = self._processes.start(_pace(one, self._settings.seed), windows.warm_up_s, slice_s)
        warm_up = load.slice()
        before = statistics_of(self._client)
        # Do not wait for a server that answers nothing from the beginning.
        seen = [warm_up] if _fails(warm_up) else []
        while not seen or not _over(seen, windows, one.loop):
            window = load.window(lambda window: _full(window, self._settings))
            seen.append(window)
            report(Progress(_name(one), window=window_of(window)))
        last = load.stop()
        gone = before is None or _fails(seen[-1])
        after = None if gone else statistics_of(self._client)
        point = summarise(
            one,
            seen,
            last,
            labels_known=self._labels_known,
            steal=environment.steal_fraction(start, environment.snapshot()),
            statistics=None if before is None or after is None else after - before,
            sender_nice=self._processes.nice,
        )
        report(Progress(_name(one), point=point))
        return point


def _over(seen: Sequence[Slice], windows: Windows, loop: LoopKind) -> bool:
    stable = is_stable([window_of(window) for window in seen], loop)
    return _fails(seen[-1]) or stable or len(seen) >= windows.most


def _fails(window: Slice) -> bool:
    """Whether all requests failed."""
    return window.errors.total() > 0 and not window.answered


def _full(window: Slice, settings: Settings) -> bool:
    elapsed_s, wanted = window.elapsed_ns / 1e9, settings.windows
    if not wanted.requests:
        return True
    enough = window.answered + window.errors.total() >= wanted.requests
    # Wait for a server that has stopped answering no longer than for one request.
    return elapsed_s >= wanted.seconds and (enough or elapsed_s >= settings.timeout_s)


def _pace(one: Asked, seed: int) -> Pace:
    arrivals: Arrivals = "poisson" if one.arrivals == "poisson" else "constant"
    return Pace(one.concurrency, one.rate_per_s, arrivals, seed)


def _name(one: Asked) -> str:
    if one.rate_per_s is None:
        return f"{one.mode}, closed loop, concurrency {one.concurrency}"
    return f"{one.mode}, open loop, {one.rate_per_s:g} requests/s"
