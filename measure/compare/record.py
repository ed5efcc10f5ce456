"""Keep the record of a comparison of execution providers as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from measure.compare.analysis import Analysis
from measure.compare.findings import findings
from measure.compare.runs import Cell, Measured, Provider
from measure.core.record import recorded


@dataclass(frozen=True, slots=True)
class CompareRecord:
    """The keys of a record that do not follow from others."""

    SCHEMA: ClassVar = "argmax-serving/compare/1"

    environment: dict[str, Any]
    settings: dict[str, Any]
    providers: tuple[Provider, ...]
    cells: tuple[Cell, ...]
    broken_limits: tuple[str, ...] = ()

    @property
    def measured(self) -> Measured:
        """What was measured."""
        return Measured(self.providers, self.cells)


def to_json(
    settings: Mapping[str, Any],
    environment: Mapping[str, Any],
    analysis: Analysis,
    broken: Sequence[str] = (),
) -> dict[str, Any]:
    """Record of a comparison; `broken` are the limits that it broke.

    Providers and cells are what was measured, all else follows from them. A number without a bound
    is null.
    """
    measured = analysis.measured
    return recorded(
        CompareRecord.SCHEMA,
        environment=environment,
        settings=settings,
        providers=measured.providers,
        cells=[
            {"provider": cell.provider, "agreement_or_near_tie": cell.agreement}
            | {"rounds_ns": cell.rounds_ns, "point": cell.point}
            for cell in measured.cells
        ],
        pairs=analysis.pairs,
        verdicts=[
            {"mode": mode, "batch_size": size, "verdict": verdict}
            for (mode, size), verdict in analysis.verdicts.items()
        ],
        lines=analysis.lines,
        crossovers=analysis.meetings,
        findings=findings(analysis, environment),
        broken_limits=broken,
    )
