"""The record of a sweep as JSON, the source of every other view."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

from measure.core.record import encoded, flat, recorded, write_table
from measure.core.verdict import Finding
from measure.sweep.summary import Point, Spread, StageSplit, warnings

_NOT_IN_CSV = ("error_kinds", "latencies_ns", "replicas", "server")
_GROUPS = {"latency_ns": Spread, "first_prediction_ns": Spread, "stages": StageSplit}


@dataclass(frozen=True, slots=True)
class SweepRecord:
    """The contents of a record."""

    SCHEMA: ClassVar = "argmax-serving/sweep/1"

    environment: dict[str, Any]
    settings: dict[str, Any]
    points: list[Point]
    findings: list[Finding] = field(default_factory=list)


def to_json(
    settings: Mapping[str, Any], environment: Mapping[str, Any], points: Sequence[Point]
) -> dict[str, Any]:
    """Make the record of a sweep; non-finite numbers become None."""
    return recorded(
        SweepRecord.SCHEMA,
        environment=environment,
        settings=settings,
        points=points,
        findings=warnings(points, environment),
    )


def write_csv(path: Path, points: Sequence[Point]) -> None:
    """Write one row per point under flat column names; None is empty. Raises OSError."""
    rows = [flat(encoded(point), _NOT_IN_CSV) for point in points]
    # The columns do not depend on what was measured.
    empty: dict[str, Any] = {each.name: "" for each in fields(Point)}
    for name, group in _GROUPS.items():
        empty[name] = {each.name: "" for each in fields(group)}
    write_table(path, list(flat(empty, _NOT_IN_CSV)), rows)
