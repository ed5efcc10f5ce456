"""Measure a server under load: at fixed levels, along a ramp, or with a schedule."""

import contextlib
from collections.abc import Iterator, Sequence

from command_line.interruption import Interrupted
from measure.engine.arrivals import Arrivals
from measure.engine.pace import Pace
from measure.engine.processes import LoadProcesses, RunningLoad, load_processes
from measure.engine.schedule import Kind, Schedule
from measure.engine.slice import Slice
from measure.engine.windows import LoopKind, is_stable, window_of
from measure.engine.worker_job import Job, Mode
from measure.load.export.export import Export
from measure.load.observing import observing
from measure.load.settings import Progress, Report, Settings, Windows, asked
from measure.load.shares import shares
from measure.load.summary import Asked, LoadPoint, summarise
from measure.load.target import Target
from measure.servers.beside import Beside, Meanwhile

# Windows that last for a number of requests are built from slices of this length.
_PIECE_S = 0.25
# Of a schedule; the windows of a long one are longer.
_MOST_WINDOWS = 1000


def load(
    settings: Settings,
    target: Target,
    report: Report,
    schedule: Schedule | None = None,
    export: Export | None = None,
) -> None:
    """Measure all points of the settings; each goes to `report`.

    A point with nothing but failed requests is the last: the server is gone, and the earlier points
    are kept. `schedule` is that of the settings.
    """
    for mode in settings.modes:
        report(Progress(f"{mode}: connecting"))
        with loading(settings, target, mode, schedule, export) as one_mode:
            points = [one for one in asked(settings) if one.mode == mode]
            if settings.ramp is not None:
                is_gone = not one_mode.ramp(points, report)
            elif schedule is not None:
                is_gone = _is_gone(one_mode.replay(points[0], schedule, report))
            else:
                is_gone = any(_is_gone(one_mode.measure(one, report)) for one in points)
            if is_gone:
                return


def _is_gone(point: LoadPoint) -> bool:
    return bool(point.errors) and not point.windows[-1].rate_per_s


@contextlib.contextmanager
def loading(
    settings: Settings,
    target: Target,
    mode: Mode,
    schedule: Schedule | None = None,
    export: Export | None = None,
) -> Iterator["Loading"]:
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
        # A stream stays with its server.
        streams=len(target.replicas),
        servers=len(target.replicas),
        schedule=schedule,
        balance=settings.balance,
        resolve_s=settings.resolve_s,
    )
    kinds = [Kind(settings.model, settings.rows)] if schedule is None else schedule.kinds
    with (
        observing(settings, target, {kind.model for kind in kinds}) as beside,
        load_processes(job, settings.processes) as processes,
    ):
        labels_known = target.experiment is not None
        yield Loading(processes, beside, settings, kinds, export, labels_known=labels_known)


class Loading:
    """Connected load processes that measure a server point by point."""

    def __init__(
        self,
        processes: LoadProcesses,
        beside: Beside,
        settings: Settings,
        kinds: Sequence[Kind],
        export: Export | None,
        *,
        labels_known: bool,
    ) -> None:
        self._processes = processes
        self._beside = beside
        self._settings = settings
        self._kinds = kinds
        self._export = export
        self._labels_known = labels_known

    def measure(self, one: Asked, report: Report) -> LoadPoint:
        """Measure one point. Every window after the warm-up counts, even if windows disagree."""
        windows = self._settings.windows
        slice_s = min(windows.seconds, _PIECE_S) if windows.requests else windows.seconds
        load = self._start(self._pace(one), windows.warm_up_s, slice_s)
        warm_up = load.slice()
        since = self._beside.now()
        # Do not wait for a server that answers nothing from the beginning.
        seen = [warm_up] if _fails(warm_up) else []
        while not seen or not _over(seen, windows, one.loop):
            window = load.window(lambda window: _full(window, self._settings))
            seen.append(window)
            report(Progress(_name(one), window=window_of(window)))
        last = load.stop()
        gone = not since.is_counted or _fails(seen[-1])
        until = self._beside.now(gone=gone)
        return self._report([one], load, report, seen, last, self._beside.between(since, until))

    def ramp(self, points: Sequence[Asked], report: Report) -> bool:
        """Measure a ramp, each part of which is one of `points`; whether the server was there.

        It ends early with a part in which all requests failed.
        """
        ramp = self._settings.ramp
        assert ramp is not None
        part_s = ramp.seconds / len(points)
        pace = self._pace(points[0])
        warm_up_s = self._settings.windows.warm_up_s
        load = self._start(pace, warm_up_s, part_s)
        load.slice()
        since = self._beside.now()
        for one in points:
            part = load.slice()
            report(Progress(_name(one), window=window_of(part)))
            gone, is_last = _fails(part), one is points[-1]
            # The requests under way at the end belong to the last part.
            last = load.stop() if gone or is_last else Slice(part.end_ns, part.end_ns)
            until = self._beside.now(gone=gone)
            meanwhile = self._beside.between(since, until)
            self._report_point(one, report, [part], last, meanwhile)
            if gone:
                break
            since = until
        self._keep(points, load)
        return not gone

    def replay(self, one: Asked, schedule: Schedule, report: Report) -> LoadPoint:
        """Measure a schedule from its first request to its last answer; all of them count.

        If a signal comes, those until then are reported before it is raised.
        """
        slice_s = max(self._settings.windows.seconds, schedule.seconds / _MOST_WINDOWS)
        seen: list[Slice] = []
        since = self._beside.now()
        load = self._start(self._pace(one), 0.0, slice_s)
        try:
            load.slice()
            while not _is_sent(seen, schedule, self._settings.timeout_s):
                window = load.slice()
                seen.append(window)
                report(Progress(_name(one), window=window_of(window)))
            _add_rest(seen, load.stop(), slice_s)
        except Interrupted:
            if seen:
                end = Slice(seen[-1].end_ns, seen[-1].end_ns)
                self._report_point(one, report, seen, end, Meanwhile())
            raise
        until = self._beside.now(gone=_fails(seen[-1]))
        meanwhile = self._beside.between(since, until)
        left = len(schedule.at_ns) - sum(each.answered + each.errors.total() for each in seen)
        end = Slice(seen[-1].end_ns, seen[-1].end_ns, left_behind=left)
        return self._report([one], load, report, seen, end, meanwhile)

    def _start(self, pace: Pace, warm_up_s: float, slice_s: float) -> RunningLoad:
        spools = None if self._export is None else self._export.spools
        return self._processes.start(pace, warm_up_s, slice_s, spools)

    def _pace(self, one: Asked) -> Pace:
        arrivals: Arrivals = "poisson" if one.arrivals == "poisson" else "constant"
        ramp = self._settings.ramp
        seed = self._settings.seed
        if ramp is None:
            return Pace(one.concurrency, one.rate_per_s, arrivals, seed)
        if ramp.loop == "closed":
            return Pace(concurrency=int(ramp.first), seed=seed, stages=ramp.stages)
        return Pace(rate_per_s=ramp.first, arrivals=arrivals, seed=seed, stages=ramp.stages)

    def _report(
        self,
        points: Sequence[Asked],
        load: RunningLoad,
        report: Report,
        seen: Sequence[Slice],
        last: Slice,
        meanwhile: Meanwhile,
    ) -> LoadPoint:
        point = self._report_point(points[0], report, seen, last, meanwhile)
        self._keep(points, load)
        return point

    def _report_point(
        self,
        one: Asked,
        report: Report,
        seen: Sequence[Slice],
        last: Slice,
        meanwhile: Meanwhile,
    ) -> LoadPoint:
        point = summarise(
            one,
            seen,
            last,
            labels_known=self._labels_known,
            steal=meanwhile.steal,
            statistics=meanwhile.statistics,
            sender_nice=self._processes.nice,
            server=meanwhile.server,
            replicas=shares([*seen, last], meanwhile.each, labels_known=self._labels_known),
            goodput_ms=self._settings.goodput_ms,
        )
        report(Progress(_name(one), point=point))
        return point

    def _keep(self, points: Sequence[Asked], load: RunningLoad) -> None:
        if self._export is not None:
            whole = points[0].schedule is not None
            self._export.add(points, load.taken, self._kinds, whole=whole)


def _over(seen: Sequence[Slice], windows: Windows, loop: LoopKind) -> bool:
    stable = is_stable([window_of(window) for window in seen], loop)
    return _fails(seen[-1]) or stable or len(seen) >= windows.most


def _is_sent(seen: Sequence[Slice], schedule: Schedule, timeout_s: float) -> bool:
    """Whether a schedule is sent, or nothing of its rest can be, as nothing is answered."""
    if sum(window.send_lag.samples for window in seen) >= len(schedule.at_ns):
        return True
    due = sum(window.due for window in seen) >= len(schedule.at_ns)
    silent_s = 0.0
    for window in reversed(seen):
        if window.answered or window.errors:
            break
        silent_s += window.elapsed_ns / 1e9
    return due and silent_s > timeout_s


def _add_rest(seen: list[Slice], rest: Slice, slice_s: float) -> None:
    """Add the answers after the last request: to the last window, which must not be too short.

    A few requests in a few milliseconds would look like a high rate.
    """
    last = seen.pop()
    last.add(rest)
    if seen and last.elapsed_ns < slice_s * 1e9 / 2:
        seen[-1].add(last)
    else:
        seen.append(last)


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


def _name(one: Asked) -> str:
    if one.schedule is not None:
        return f"{one.mode}, schedule {one.schedule}"
    ramp = "" if one.ramp is None else "ramp, "
    if one.rate_per_s is None:
        return f"{one.mode}, closed loop, {ramp}concurrency {one.concurrency}"
    return f"{one.mode}, open loop, {ramp}{one.rate_per_s:g} requests/s"
