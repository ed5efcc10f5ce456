"""The record of the measurements as JSON, the source of every view."""

from collections.abc import Mapping
from typing import Any

from measure.core.judged import goal_records
from measure.core.record import recorded
from measure.core.verdict import Goal
from measure.side_by_side.compose import Results
from measure.side_by_side.names import label
from measure.side_by_side.service import Settings

SCHEMA = "argmax-serving/bench/1"


def to_json(
    settings: Settings, environment: Mapping[str, Any], results: Results, goals: list[Goal]
) -> dict[str, Any]:
    """Make the record. Lists have one value per round; the i-th values were measured together."""
    return recorded(
        SCHEMA,
        environment=environment,
        settings=settings,
        memcpy_gib_per_s=results.memcpy_gib_per_s,
        systems=[
            {
                "name": name,
                "label": label(name),
                "kind": kind,
                "versions": results.versions.get(name.removesuffix("_shm"), {}),
                "points": [cell for cell in results.cells if cell.system == name],
            }
            for name, kind in results.kinds.items()
        ],
        concurrency=results.concurrency,
        narrow=results.narrow and results.narrow.cells,
        memory=results.memory,
        small_requests=results.small_requests,
        goals=goal_records(goals),
        skipped=results.skipped,
    )
