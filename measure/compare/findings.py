"""Find the broken limits of a comparison, and the findings that weaken it."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from measure.compare.analysis import Analysis
from measure.core.comparison import fewest_to_claim
from measure.core.verdict import Finding
from measure.sweep.summary import disturbances


def broken_limits(
    analysis: Analysis, require_agreement: float | None, max_slowdown: float | None
) -> Iterator[str]:
    """Broken limits, the worst of each kind first.

    A slowdown breaks its limit where the whole interval of the ratio to the first lies above it.
    """
    if require_agreement is not None:
        known = [(c.agreement, c) for c in analysis.measured.cells if c.agreement is not None]
        for agreement, cell in sorted(known, key=lambda pair: pair[0]):
            if agreement < require_agreement:
                yield (
                    f"{_where(cell.point.mode, cell.point.batch_size)}: {cell.provider} agrees "
                    f"with the reference in {agreement:.6g} of labels, below {require_agreement:g}"
                )
    if max_slowdown is not None:
        first = analysis.measured.providers[0].label
        for pair in sorted(analysis.pairs, key=lambda pair: -pair.ratio.low):
            if pair.base == first and pair.ratio.low > max_slowdown:
                yield (
                    f"{_where(pair.mode, pair.batch_size)}: {pair.provider} takes "
                    f"{pair.ratio:.3g} times as long as {first}, over {max_slowdown:g}"
                )


def findings(analysis: Analysis, environment: Mapping[str, Any]) -> list[Finding]:
    """Findings to know before trusting the comparison: failures first."""
    return [*_failures(analysis), *_doubts(analysis), *disturbances(environment)]


def _failures(analysis: Analysis) -> Iterable[Finding]:
    for cell in analysis.measured.cells:
        if cell.point.errors:
            kinds = "; ".join(f"{text} ({n:,})" for text, n in cell.point.error_kinds.items())
            where = _where(cell.point.mode, cell.point.batch_size)
            yield Finding("fail", f"{where}: {cell.provider}: requests failed: {kinds}")


def _doubts(analysis: Analysis) -> Iterable[Finding]:
    for provider in analysis.measured.providers:
        cells = [cell for cell in analysis.measured.cells if cell.provider == provider.label]
        wrong = sum(cell.point.wrong_labels for cell in cells)
        rows = sum(cell.point.rows for cell in cells)
        if wrong:
            yield Finding(
                "warn",
                f"{provider.label}: {wrong:,} of {rows:,} labels differ from the float64 reference "
                "by more than rounding in the model's dtype explains",
            )
    pairs = analysis.pairs
    fewest = min((pair.ratio.pairs for pair in pairs), default=0)
    needed = fewest_to_claim(len(pairs))
    if fewest < needed:
        yield Finding(
            "warn",
            f"{fewest} rounds are too few to claim a difference among {len(pairs)} comparisons, "
            f"expected at least {needed}",
        )


def _where(mode: str, batch_size: int) -> str:
    return f"{mode}, batch size {batch_size:,}"
