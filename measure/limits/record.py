"""The record of roofs, and of the points under them, as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from measure.core.record import recorded
from measure.limits.peaks import WHAT, Roof
from measure.limits.placement import Placed
from measure.limits.subject import Subject, Work


@dataclass(frozen=True, slots=True)
class LimitsRecord:
    """Roofs, the points under them, and the work per row."""

    SCHEMA: ClassVar = "argmax-serving/limits/1"

    environment: dict[str, Any]
    settings: dict[str, Any]
    roofs: list[Roof]
    skipped: dict[str, str]
    differences: list[str]
    work: Work | None
    points: list[Placed]


def to_json(
    settings: Mapping[str, Any],
    environment: Mapping[str, Any],
    roofs: Sequence[Roof],
    skipped: Mapping[str, str],
    subject: Subject | None,
    placed: Sequence[Placed],
    differences: Sequence[str],
) -> dict[str, Any]:
    """Make the record of roofs and placed points.

    `differences` lists how the result's machine differs from that of the roofs.
    """
    return recorded(
        LimitsRecord.SCHEMA,
        environment=environment,
        settings=settings,
        roofs=[
            {"name": roof.name, "unit": roof.unit, "what": WHAT[roof.name]}
            | {"best": roof.best, "median": roof.median, "rounds": roof.rounds}
            for roof in roofs
        ],
        skipped=skipped,
        differences=differences,
        work=subject and subject.work,
        points=placed,
    )
