"""Keep the record of LoadGen runs as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from measure.core.record import recorded
from measure.loadgen.runs import Plan, Result

QUICK = "quick: not a valid MLPerf result"
LONG = "LoadGen-driven, not an MLPerf result: the model is none of MLPerf's benchmarks"


@dataclass(frozen=True, slots=True)
class LoadgenRecord:
    """What a record holds."""

    SCHEMA: ClassVar = "argmax-serving/loadgen/1"

    label: str
    conforming: bool
    environment: dict[str, Any]
    settings: dict[str, Any]
    results: list[Result]


def label(plan: Plan) -> str:
    """What must stand beside every number of these runs."""
    return QUICK if plan.quick else LONG


def to_json(
    plan: Plan, environment: Mapping[str, Any], results: Sequence[Result]
) -> dict[str, Any]:
    """Record of the runs of a plan; `conforming`: by LoadGen's own rules for a run's length."""
    return recorded(
        LoadgenRecord.SCHEMA,
        label=label(plan),
        conforming=not plan.quick,
        environment=environment,
        settings=plan,
        results=results,
    )
