"""Decide whether the windows of a load agree, or whether noise makes that inconclusive."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from measure.engine.slice import Slice

STABLE_WINDOWS = 3
STABLE_SHARE = 0.10
# By chance alone, all six deviations (rate and latency of three windows) from the mean of three
# stay within this many standard errors of a window in 99 of 100 loads.
_STANDARD_ERRORS = 2.5
# Fewer requests cannot estimate their own spread.
_FEWEST_REQUESTS = 5

LoopKind = Literal["closed", "open"]


@dataclass(frozen=True, slots=True)
class Window:
    """One window's results: requests answered and due per second, mean latency, errors.

    `latency_sd_ns` is the standard deviation of the latencies of its `answered` requests.
    It is `seconds` long and begins `start_s` after the first window. Old records lack the three.
    """

    rate_per_s: float
    mean_latency_ns: float | None
    errors: int
    due_per_s: float
    answered: int = 0
    latency_sd_ns: float | None = None
    start_s: float | None = None
    seconds: float | None = None


def window_of(found: Slice, start_ns: int | None = None) -> Window:
    """Summary of a window; the first one began at `start_ns`, by default this one."""
    return Window(
        rate_per_s=found.rate_per_s,
        mean_latency_ns=found.mean_latency_ns,
        errors=found.errors.total(),
        due_per_s=found.due * 1e9 / found.elapsed_ns,
        answered=found.answered,
        latency_sd_ns=found.latency_sd_ns,
        start_s=0.0 if start_ns is None else (found.start_ns - start_ns) / 1e9,
        seconds=found.elapsed_ns / 1e9,
    )


def is_stable(windows: Sequence[Window], loop: LoopKind) -> bool:
    """Whether rate and mean latency of the last three windows are within a tenth of their means.

    In an open loop the rate is the share of due requests that were answered: how many were due
    varies between windows by chance, independently of the server.
    """
    last = windows[-STABLE_WINDOWS:]
    rates, latencies = _rates(last, loop), _latencies(last)
    if len(last) < STABLE_WINDOWS or len(latencies) < len(last):
        return False
    return max(_deviation(rates), _deviation(latencies)) <= STABLE_SHARE


def stability(windows: Sequence[Window], loop: LoopKind) -> tuple[bool | None, str]:
    """Whether a load was stable, with the reason; None if chance alone may explain the difference.

    The mean latency of n requests has a relative standard error of cv / sqrt(n), where cv is their
    coefficient of variation. So has the rate of a closed loop, as each slot sends when it is
    answered. Either rate also varies by the requests that a window's ends cut off: each request in
    flight may fall on either side.
    """
    text = f"rate and latency of {STABLE_WINDOWS} windows within {STABLE_SHARE:.0%} of their mean"
    text += f"; {len(windows)} windows"
    if is_stable(windows, loop):
        return True, text
    last = windows[-STABLE_WINDOWS:]
    latencies = _latencies(last)
    if len(last) < STABLE_WINDOWS or not latencies:
        return False, text
    requests = sum(window.answered for window in last) / len(last)
    if not requests:  # the record lacks it
        return False, text
    # The median over the windows: a stall in one must not count as the spread of all.
    spreads = [
        w.latency_sd_ns / w.mean_latency_ns
        for w in last
        if w.latency_sd_ns is not None and w.mean_latency_ns
    ]
    spread = median(spreads) if spreads else 0.0
    rate_per_s = sum(window.rate_per_s for window in last) / len(last)
    under_way = rate_per_s * sum(latencies) / len(latencies) / 1e9
    of_latency = spread**2 / requests
    of_rate = under_way / requests**2 + (of_latency if loop == "closed" else 0.0)
    explained = requests < _FEWEST_REQUESTS or (
        _deviation(_rates(last, loop)) <= _limit(of_rate)
        and _deviation(latencies) <= _limit(of_latency)
    )
    if not explained:
        return False, text
    enough = _enough(spread, under_way)
    return None, (
        f"{text} of {requests:.0f} requests, which may differ by chance alone: "
        f"give --window-requests {enough}"
    )


def _rates(windows: Sequence[Window], loop: LoopKind) -> list[float]:
    if loop == "closed":
        return [window.rate_per_s for window in windows]
    return [window.rate_per_s / max(window.due_per_s, 1e-9) for window in windows]


def _latencies(windows: Sequence[Window]) -> list[float]:
    return [w.mean_latency_ns for w in windows if w.mean_latency_ns is not None]


def _deviation(values: Sequence[float]) -> float:
    """Return the largest relative deviation from the mean."""
    mean = sum(values) / len(values)
    return max(abs(value - mean) for value in values) / mean if mean else 0.0


def _limit(variance: float) -> float:
    return STABLE_SHARE + _STANDARD_ERRORS * math.sqrt(variance)


def _enough(spread: float, under_way: float) -> int:
    """Requests per window with which chance alone stays within the limit for stable."""
    most = (STABLE_SHARE / _STANDARD_ERRORS) ** 2
    # Solves spread**2 / n + under_way / n**2 = most.
    requests = (spread**2 + math.sqrt(spread**4 + 4 * most * under_way)) / (2 * most)
    return max(math.ceil(requests), _FEWEST_REQUESTS)
