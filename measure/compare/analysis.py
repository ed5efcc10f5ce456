"""Turn interleaved measurements of execution providers into ratios, verdicts and fits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar

import numpy as np

from measure.compare.runs import Cell, Measured
from measure.core.comparison import LEVEL, Ratio, compare, fewest_to_claim
from measure.core.latency_fit import (
    FEWEST_SIZES,
    Crossover,
    Estimate,
    Fit,
    crossover,
    estimate,
    fit,
    resampled,
)

NO_DIFFERENCE = "no difference"


@dataclass(frozen=True, slots=True)
class Pair:
    """Latency of `provider` over that of `base`.

    The interval of the ratio, and `differs`, hold for all pairs of the run at once.
    """

    mode: str
    batch_size: int
    base: str
    provider: str
    ratio: Ratio
    p_value: float
    differs: bool

    @property
    def slower(self) -> str | None:
        """Label of the slower one, if a difference is claimed."""
        if not self.differs:
            return None
        return self.provider if self.ratio.median > 1 else self.base


@dataclass(frozen=True, slots=True)
class Line:
    """The fit of one provider in one mode, with intervals."""

    mode: str
    provider: str
    fit: Fit
    alpha_ns: Estimate
    beta_ns: Estimate
    half_peak_rows: Estimate
    near_peak_rows: Estimate


@dataclass(frozen=True, slots=True)
class Meeting:
    """Where the lines of two providers cross in one mode."""

    DERIVED: ClassVar = ("established",)

    mode: str
    first: str
    second: str
    crossover: Crossover
    faster_below: str

    @property
    def established(self) -> bool:
        """Whether the lines are known to cross."""
        return self.crossover.established


@dataclass(frozen=True, slots=True)
class Analysis:
    """The analysis of a comparison; `verdicts` by mode and batch size."""

    measured: Measured
    pairs: tuple[Pair, ...]
    verdicts: Mapping[tuple[str, int], str]
    lines: tuple[Line, ...]
    meetings: tuple[Meeting, ...]

    def over_first(self, mode: str, provider: str) -> list[Pair]:
        """Pairs of a provider with the first one in one mode, by rising batch size."""
        place = (mode, self.measured.providers[0].label, provider)
        return [pair for pair in self.pairs if (pair.mode, pair.base, pair.provider) == place]

    def to_first(self, cell: Cell) -> Pair | None:
        """The pair of a cell's provider with the first; None of the first itself or failures."""
        pairs = self.over_first(cell.point.mode, cell.provider)
        return next((pair for pair in pairs if pair.batch_size == cell.point.batch_size), None)


def analyse(measured: Measured) -> Analysis:
    """Compare all providers with each other; the same measurements give the same analysis."""
    pairs = _pairs(measured)
    verdicts = {
        (mode, size): verdict(
            [provider.label for provider in measured.providers],
            [pair for pair in pairs if (pair.mode, pair.batch_size) == (mode, size)],
        )
        for mode in measured.modes
        for size in measured.batch_sizes
    }
    lines: list[Line] = []
    meetings: list[Meeting] = []
    for mode in measured.modes:
        found, crossed = _lines(measured, mode)
        lines += found
        meetings += crossed
    return Analysis(measured, tuple(pairs), verdicts, tuple(lines), tuple(meetings))


def could_differ(pairs: Sequence[Pair]) -> bool:
    """Whether any pair of providers has rounds enough for a difference to be claimed."""
    return any(pair.ratio.pairs >= fewest_to_claim(len(pairs)) for pair in pairs)


def verdict(labels: Sequence[str], pairs: Sequence[Pair]) -> str:
    """Winners at one batch size: the providers not claimed to be slower than any other.

    Several are named together, unless no provider is slower.
    """
    if not pairs:
        return "-"
    slower = {pair.slower for pair in pairs}
    best = [label for label in labels if label not in slower]
    return " or ".join(best) if 0 < len(best) < len(labels) else NO_DIFFERENCE


def _pairs(measured: Measured) -> list[Pair]:
    sides: list[tuple[Cell, Cell]] = []
    for mode in measured.modes:
        for size in measured.batch_sizes:
            cells = [measured.cell(mode, size, one.label) for one in measured.providers]
            timed = [cell for cell in cells if cell.rounds_ns]
            sides += combinations(timed, 2)
    # Bonferroni: the chance of any false claim is at most LEVEL, even of dependent pairs.
    level = LEVEL / max(len(sides), 1)
    pairs = []
    for base, other in sides:
        found = compare(other.rounds_ns, base.rounds_ns, level)
        pairs.append(
            Pair(
                mode=base.point.mode,
                batch_size=base.point.batch_size,
                base=base.provider,
                provider=other.provider,
                ratio=found.ratio,
                p_value=found.p_value,
                differs=found.differs,
            )
        )
    return pairs


def fitted_sizes(measured: Measured, mode: str) -> list[int]:
    """Batch sizes of one mode at which nothing failed, so that a line can be fitted to them."""
    return [
        size
        for size in measured.batch_sizes
        if all(measured.cell(mode, size, one.label).rounds_ns for one in measured.providers)
    ]


def _lines(measured: Measured, mode: str) -> tuple[list[Line], list[Meeting]]:
    """Fits of one mode, over the batch sizes at which nothing failed."""
    labels = [provider.label for provider in measured.providers]
    sizes = fitted_sizes(measured, mode)
    if len(sizes) < FEWEST_SIZES:
        return [], []
    runs = [
        np.array([measured.cell(mode, size, label).rounds_ns for size in sizes], float)
        for label in labels
    ]
    fits = [fit(sizes, list(np.median(values, axis=1))) for values in runs]
    draws = resampled(sizes, runs)
    lines = [
        Line(
            mode=mode,
            provider=label,
            fit=one,
            alpha_ns=estimate(one, drawn, lambda fitted: fitted.alpha_ns),
            beta_ns=estimate(one, drawn, lambda fitted: fitted.beta_ns),
            half_peak_rows=estimate(one, drawn, lambda fitted: fitted.half_peak_rows),
            near_peak_rows=estimate(one, drawn, lambda fitted: fitted.near_peak_rows),
        )
        for label, one, drawn in zip(labels, fits, draws, strict=True)
    ]
    meetings = []
    for i, j in combinations(range(len(labels)), 2):
        drawn_pairs = list(zip(draws[i], draws[j], strict=True))
        below = i if fits[i].latency_ns(sizes[0]) <= fits[j].latency_ns(sizes[0]) else j
        meetings.append(
            Meeting(
                mode=mode,
                first=labels[i],
                second=labels[j],
                crossover=crossover(fits[i], fits[j], drawn_pairs, sizes[0], sizes[-1]),
                faster_below=labels[below],
            )
        )
    return lines, meetings
