"""Measure the inputs of a plan: single requests, the server's capacity, loads below it."""

from dataclasses import replace

import numpy as np

from client.client import Client
from client.errors import UsageError
from measure.core.confidence import fewest_samples
from measure.core.latency_fit import FEWEST_SIZES
from measure.load.runs import loading
from measure.load.settings import Progress, Report, Settings, Windows, open_loop
from measure.load.summary import Asked, LoadPoint
from measure.load.target import Target, target
from measure.plan.observed import Calibration, Observation, Trace
from server.batching.policy import Limits

# Requests in flight in the closed loop that measures capacity.
CONCURRENCY = 16
# Shares of that capacity. Held-out loads lie between fitted ones: a prediction that holds there
# says nothing about higher loads. Closer to capacity, the p99 of one load varies by half between
# minutes.
FITTED_SHARES = (0.25, 0.45, 0.6, 0.75)
HELD_OUT_SHARES = (0.35, 0.5, 0.7)
# A machine has better and worse minutes, so each load is measured in two passes.
_PASSES = 2
# The largest single request.
_MOST_ROWS, _MOST_BYTES = 64, 64 * 2**20
_WINDOWS = 3
# Times of the closed loops, as shares of an open loop's: only open loops need percentiles.
_LONE_SHARE, _BUSY_SHARE = 1 / 6, 1 / 4
_LEAST_WINDOW_S, _MOST_WARM_UP_S = 0.25, 1.0
# More requests than a percentile needs, because fewer than average may arrive.
_CHANCE = 1.3


def limits_of(client: Client) -> Limits:
    """The batching limits that a server reports for a model; UsageError if it reports none."""
    config = client.config()
    batching = config.dynamic_batching
    group_rows = max(batching.preferred_batch_size, default=0)
    if not group_rows:
        raise UsageError("the server does not report how many rows it gathers for one execution")
    delay_ns = batching.max_queue_delay_microseconds * 1000
    return Limits.of(group_rows, config.max_batch_size, delay_ns)


def sizes(rows: int, group_rows: int, row_bytes: int) -> list[int]:
    """Rows of the single requests: the planned size, and powers of two up to a group.

    At least three sizes, which a line fit needs, unless no request can have that many rows.
    """
    most = min(group_rows, _most_rows(row_bytes))
    chosen = {rows, most, *(2**k for k in range(most.bit_length()))}
    if len(chosen) < FEWEST_SIZES and max(chosen) >= FEWEST_SIZES:
        chosen.add((min(chosen) + max(chosen)) // 2)
    return sorted(chosen)


def calibrate(settings: Settings, seconds: float, report: Report) -> Calibration:
    """Measure a server with requests of the settings' rows, each open loop for `seconds`.

    UsageError if the server reports too little or cannot be measured.
    """
    most_rows = max(settings.rows, _most_rows(_row_bytes(settings)))
    with target(replace(settings, rows=most_rows), report) as where:
        with _client(settings, where.address) as client:
            spec, limits = client.input(), limits_of(client)
        found = []
        for rows in sizes(settings.rows, limits.group_rows, spec.row_bytes):
            report(Progress(f"single requests of {rows} rows"))
            lone = replace(settings, rows=rows)
            found.append(_closed(lone, where, 1, seconds * _LONE_SHARE, report))
        report(Progress("the server's capacity, then loads below it"))
        busy = _closed(settings, where, CONCURRENCY, seconds * _BUSY_SHARE, report)
        open_loops = _open(settings, where, busy, seconds, report)
        return Calibration(
            model=settings.model,
            rows=settings.rows,
            row_bytes=spec.row_bytes,
            dtype=spec.dtype.name,
            limits=limits,
            sizes=tuple(found),
            busy=busy,
            fitted=tuple(open_loops[share] for share in FITTED_SHARES),
            held_out=tuple(open_loops[share] for share in HELD_OUT_SHARES),
        )


def _windows(seconds: float) -> Windows:
    """Windows of so many seconds in all, each long enough for several requests.

    Requests are not counted during a window: counting takes sender time and server cores.
    """
    window_s = max(seconds / _WINDOWS, _LEAST_WINDOW_S)
    return Windows(min(window_s, _MOST_WARM_UP_S), window_s, requests=0, most=_WINDOWS)


def _seconds_for(percentile: float, rate_per_s: float) -> float:
    """How long a load must last for enough samples of a percentile."""
    return _CHANCE * fewest_samples(percentile) / rate_per_s


def _row_bytes(settings: Settings) -> int:
    if settings.address is None:
        return settings.features * np.dtype(settings.dtype).itemsize
    with _client(settings, settings.address) as client:
        client.check_reachable()
        return client.input().row_bytes


def _client(settings: Settings, address: str) -> Client:
    return Client(
        address,
        settings.model,
        settings.version,
        credentials=settings.credential_files.read(),
    )


def _most_rows(row_bytes: int) -> int:
    return max(min(_MOST_ROWS, _MOST_BYTES // max(row_bytes, 1)), 1)


def _closed(
    settings: Settings, where: Target, concurrency: int, seconds: float, report: Report
) -> Observation:
    asked = Asked("closed", "unary", settings.rows, settings.processes, concurrency=concurrency)
    with loading(replace(settings, windows=_windows(seconds)), where, "unary") as load:
        seen = Observation.of([_checked(load.measure(asked, report))])
    if seen.samples >= fewest_samples(90):
        return seen
    longer = _windows(_seconds_for(90, seen.requests_per_s))
    with loading(replace(settings, windows=longer), where, "unary") as load:
        return Observation.of([_checked(load.measure(asked, report))])


def _open(
    settings: Settings, where: Target, busy: Observation, seconds: float, report: Report
) -> dict[float, Observation]:
    """Measure all open loops by their shares, in ascending and then in descending order.

    Fitted and held-out loads alternate, so that a drift of the machine affects both alike.
    """
    shares = sorted((*FITTED_SHARES, *HELD_OUT_SHARES))
    rates_per_s = {share: share * busy.requests_per_s for share in shares}
    seconds = max(seconds, _seconds_for(99, rates_per_s[shares[0]])) / _PASSES
    points: dict[float, list[LoadPoint]] = {share: [] for share in shares}
    traces: dict[float, list[Trace]] = {share: [] for share in shares}
    windows = _windows(seconds)
    for number in range(_PASSES):
        # Different arrivals in each pass.
        one_pass = replace(settings, windows=windows, seed=settings.seed + number)
        with loading(one_pass, where, "unary") as load:
            for share in shares if number % 2 == 0 else reversed(shares):
                asked = open_loop(one_pass, "unary", rates_per_s[share])
                point = _checked(load.measure(asked, report))
                points[share].append(point)
                warm_up_ns = int(windows.warm_up_s * 1e9)
                traces[share].append(Trace(one_pass.seed, warm_up_ns, point.elapsed_ns))
    return {share: Observation.of(points[share], traces[share]) for share in shares}


def _checked(point: LoadPoint) -> LoadPoint:
    """Return the point; UsageError if labels are wrong, or a closed loop has errors.

    In an open loop a server that falls behind may reject requests; the record counts them.
    """
    if point.wrong_labels or (point.errors and point.asked.loop == "closed"):
        raise UsageError(
            f"a calibration needs answers without errors; got errors {point.errors}, "
            f"{point.wrong_labels or 0} wrong labels"
        )
    return point
