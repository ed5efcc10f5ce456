"""Measure what a plan is made of: lone requests, what a server can do, loads below that."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from client.client import READY_TIMEOUT_S, Client
from client.errors import UsageError
from client.histogram import fewest_samples
from client.load import loading
from client.load_settings import Progress, Report, Settings, Windows, open_loop
from client.load_summary import Asked, LoadPoint
from client.load_target import Target, target
from client.plan_observed import Calibration, Observation
from scheduling.batching import Limits

# Of the rate of a closed loop with so many requests under way.
CONCURRENCY = 16
FITTED_SHARES = (0.45, 0.7, 0.85)
HELD_OUT_SHARES = (0.3, 0.6, 0.8)
# The largest lone request.
_MOST_ROWS, _MOST_BYTES = 64, 64 * 2**20
_WINDOWS = 3
# Of the time that an open loop takes; those are what percentiles are wanted of.
_LONE_SHARE, _BUSY_SHARE = 1 / 6, 1 / 4
_MOST_WARM_UP_S = 1.0


def limits_of(client: Client) -> Limits:
    """How a server says that it batches a model; UsageError when it does not say."""
    config = client.config()
    batching = config.dynamic_batching
    group_rows = max(batching.preferred_batch_size, default=0)
    if not group_rows:
        raise UsageError("the server does not tell how many rows it gathers for one execution")
    delay_ns = batching.max_queue_delay_microseconds * 1000
    return Limits.of(group_rows, config.max_batch_size, delay_ns)


def sizes(rows: int, group_rows: int, row_bytes: int) -> list[int]:
    """Rows of the lone requests: those that are planned for, and powers of two up to a group."""
    most = min(group_rows, _most_rows(row_bytes))
    return sorted({rows, most, *(2**k for k in range(most.bit_length()))})


def calibrate(settings: Settings, seconds: float, report: Report) -> Calibration:
    """Measure a server with requests of the settings' rows; each open loop takes `seconds`.

    UsageError when the server tells too little or cannot be measured.
    """
    most_rows = max(settings.rows, _most_rows(_row_bytes(settings)))
    with target(replace(settings, rows=most_rows), report) as where:
        with Client(where.address, settings.model, settings.version) as client:
            spec, limits = client.input(), limits_of(client)
        lone = replace(settings, windows=_windows(seconds * _LONE_SHARE, 90))
        lone_sizes = sizes(settings.rows, limits.group_rows, spec.row_bytes)
        found = []
        for rows in lone_sizes:
            report(Progress(f"lone requests of {rows} rows"))
            found.append(_closed(replace(lone, rows=rows), where, 1, report))
        report(Progress("what the server can do, then loads below"))
        busy = _closed(
            replace(settings, windows=_windows(seconds * _BUSY_SHARE, 50)),
            where,
            CONCURRENCY,
            report,
        )
        opened = replace(settings, windows=_windows(seconds, 99))
        return Calibration(
            model=settings.model,
            rows=settings.rows,
            row_bytes=spec.row_bytes,
            dtype=spec.dtype.name,
            limits=limits,
            sizes=tuple(found),
            busy=busy,
            fitted=_open(opened, where, busy, FITTED_SHARES, report),
            # Other arrivals, so that what is held out is not what was fitted.
            held_out=_open(
                replace(opened, seed=settings.seed + 1), where, busy, HELD_OUT_SHARES, report
            ),
        )


def _windows(seconds: float, percentile: float) -> Windows:
    """Windows of so many seconds in all, longer until a percentile can be told."""
    requests = -(-fewest_samples(percentile) // _WINDOWS)
    warm_up_s = min(seconds / _WINDOWS, _MOST_WARM_UP_S)
    return Windows(warm_up_s, seconds / _WINDOWS, requests, _WINDOWS)


def _row_bytes(settings: Settings) -> int:
    if settings.address is None:
        return settings.features * np.dtype(settings.dtype).itemsize
    with Client(settings.address, settings.model, settings.version) as client:
        client.wait_until_ready(READY_TIMEOUT_S)
        return client.input().row_bytes


def _most_rows(row_bytes: int) -> int:
    return max(min(_MOST_ROWS, _MOST_BYTES // max(row_bytes, 1)), 1)


def _closed(settings: Settings, where: Target, concurrency: int, report: Report) -> Observation:
    with loading(settings, where, "unary") as load:
        asked = Asked("closed", "unary", settings.rows, settings.processes, concurrency=concurrency)
        return _seen(load.measure(asked, report))


def _open(
    settings: Settings, where: Target, busy: Observation, shares: Sequence[float], report: Report
) -> tuple[Observation, ...]:
    with loading(settings, where, "unary") as load:
        rates_per_s = [share * busy.requests_per_s for share in shares]
        asked = [open_loop(settings, "unary", rate_per_s) for rate_per_s in rates_per_s]
        return tuple(_seen(load.measure(a, report)) for a in asked)


def _seen(point: LoadPoint) -> Observation:
    """Observation of a point; UsageError if not all of its requests were answered rightly."""
    if point.errors or point.wrong_labels:
        raise UsageError(
            f"a calibration takes right answers only; errors {point.errors} came, "
            f"{point.wrong_labels or 0} wrong labels"
        )
    return Observation.of(point)
