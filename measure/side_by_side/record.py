"""Write what was measured as JSON, the source of every view."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from measure.core.goal import Goal
from measure.core.judged import told
from measure.side_by_side.compose import Results
from measure.side_by_side.names import label
from measure.side_by_side.service import Settings

SCHEMA = "argmax-serving/bench/1"


def to_json(
    settings: Settings, environment: Mapping[str, Any], results: Results, goals: list[Goal]
) -> dict[str, Any]:
    """The record. Lists of values have one for each round, the i-th of all taken together."""
    return {
        "schema": SCHEMA,
        "environment": dict(environment),
        "settings": {**asdict(settings), "out": str(settings.out)},
        "memcpy_gib_per_s": results.memcpy_gib_per_s,
        "systems": [
            {
                "name": name,
                "label": label(name),
                "kind": kind,
                "versions": results.versions.get(name.removesuffix("_shm"), {}),
                "points": [asdict(cell) for cell in results.cells if cell.system == name],
            }
            for name, kind in results.kinds.items()
        ],
        "concurrency": None if results.concurrency is None else asdict(results.concurrency),
        "narrow": None if results.narrow is None else asdict(results.narrow)["cells"],
        "memory": None if results.memory is None else asdict(results.memory),
        "goals": told(goals),
        "skipped": dict(results.skipped),
    }
