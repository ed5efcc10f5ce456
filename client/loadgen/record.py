"""Keep the record of LoadGen runs as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from client.loadgen.runs import Plan, Result
from client.record import finite

SCHEMA = "argmax-serving/loadgen/1"
QUICK = "quick: not a valid MLPerf result"
LONG = "LoadGen-driven, not an MLPerf result: the model is none of MLPerf's benchmarks"


def label(plan: Plan) -> str:
    """What must stand beside every number of these runs."""
    return QUICK if plan.quick else LONG


def to_json(
    plan: Plan, environment: Mapping[str, Any], results: Sequence[Result]
) -> dict[str, Any]:
    """Record of the runs of a plan; `conforming`: by LoadGen's own rules for a run's length."""
    whole = {
        "schema": SCHEMA,
        "label": label(plan),
        "conforming": not plan.quick,
        "environment": dict(environment),
        "settings": asdict(plan),
        "results": [asdict(result) | {"good": result.good} for result in results],
    }
    record: dict[str, Any] = finite(whole)
    return record
