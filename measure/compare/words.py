"""Describe an analysis of execution providers in words, for terminal and page."""

import math
from collections.abc import Iterator

from measure.compare.analysis import Analysis, Meeting, fitted_sizes
from measure.core.comparison import LEVEL
from measure.core.latency_fit import FEWEST_SIZES, Estimate
from measure.presentation.format import significant

HOW_VERDICTS = (
    "ratio: latency over that of the first, median of the rounds' ratios with its bootstrap "
    f"interval, so wide that all of the run hold at once with {1 - LEVEL:.0%} (Bonferroni); a "
    "difference is claimed where it excludes 1 and the exact sign test of the rounds agrees at the "
    "same level"
)
HOW_LINES = (
    "latency = alpha + beta x rows, least squares of relative errors; half of peak throughput is "
    "reached at alpha/beta rows, 90% at nine times that; brackets: 95% bootstrap interval"
)

HOW_START_UP = "start-up: median time from the start of the process until the model was ready"


def estimate_text(estimate: Estimate, per: float = 1) -> str:
    """Value with its interval, each over `per`, in three digits."""
    value, low, high = (
        "none" if math.isinf(number) else significant(number / per)
        for number in (estimate.value, estimate.low, estimate.high)
    )
    return f"{value} [{low}, {high}]"


def meeting_text(meeting: Meeting) -> str:
    """Where two lines cross, or that no crossover was found."""
    found = meeting.crossover
    pair = f"{meeting.mode}: {meeting.first} and {meeting.second}"
    if found.rows is not None and found.established:
        rows = estimate_text(found.rows)
        return f"{pair} cross at {rows} rows; below, the line of {meeting.faster_below} is lower"
    if not found.excluded:
        return f"{pair}: no crossover established ({found.share:.0%} of resamples have one)"
    return f"{pair} do not cross; the line of {meeting.faster_below} is lower throughout"


def without_line(analysis: Analysis) -> Iterator[str]:
    """One line per mode that has too few batch sizes for a fit."""
    for mode in analysis.measured.modes:
        sizes = fitted_sizes(analysis.measured, mode)
        if len(sizes) < FEWEST_SIZES:
            yield (
                f"{mode}: no line fitted: got {len(sizes)} batch size{'s' * (len(sizes) != 1)} "
                f"without errors, expected at least {FEWEST_SIZES}"
            )


def summary(analysis: Analysis) -> Iterator[str]:
    """One line per mode: who wins at which batch sizes."""
    for mode in analysis.measured.modes:
        sizes: dict[str, list[int]] = {}
        for size in analysis.measured.batch_sizes:
            sizes.setdefault(analysis.verdicts[mode, size], []).append(size)
        yield f"{mode}: " + "; ".join(
            f"{verdict} at {', '.join(f'{size:,}' for size in won)}"
            for verdict, won in sizes.items()
        )
