"""Keep roofs, and what was placed under them, as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from measure.core.record import finite, reading
from measure.limits.peaks import WHAT, Roof
from measure.limits.placement import Placed
from measure.limits.subject import Rate, Subject, Work

SCHEMA = "argmax-serving/limits/1"


def to_json(
    settings: Mapping[str, Any],
    environment: Mapping[str, Any],
    roofs: Sequence[Roof],
    skipped: Mapping[str, str],
    subject: Subject | None,
    placed: Sequence[Placed],
    differences: Sequence[str],
) -> dict[str, Any]:
    """Record, ready for `measure.sweep.record.dumps`.

    `differences` tell where the result was measured elsewhere than the roofs.
    """
    whole = {
        "schema": SCHEMA,
        "environment": dict(environment),
        "settings": dict(settings),
        "roofs": [
            {"name": roof.name, "unit": roof.unit, "what": WHAT[roof.name]}
            | {"best": roof.best, "median": roof.median, "rounds": list(roof.rounds)}
            for roof in roofs
        ],
        "skipped": dict(skipped),
        "differences": list(differences),
        "work": None if subject is None else asdict(subject.work),
        "points": [asdict(one) | {"binding": one.binding, "share": one.share} for one in placed],
    }
    content: dict[str, Any] = finite(whole)
    return content


def from_json(content: Mapping[str, Any]) -> tuple[list[Roof], list[Placed], Work | None]:
    """Roofs, points and the work of a row. RecordError on another schema or what is missing."""
    with reading(content, SCHEMA):
        roofs = [
            Roof(str(one["name"]), str(one["unit"]), tuple(one["rounds"]))
            for one in content["roofs"]
        ]
        placed = [
            Placed(
                rate=Rate(**one["rate"]),
                ceilings=dict(one["ceilings"]),
                intensity=one["intensity"],
                gflop_per_s=one["gflop_per_s"],
            )
            for one in content["points"]
        ]
        work = None if content["work"] is None else Work(**content["work"])
    return roofs, placed, work
