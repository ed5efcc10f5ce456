"""The record of LoadGen runs as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from measure.core.record import recorded
from measure.loadgen.runs import Plan, Result

QUICK = "quick: not a valid MLPerf result"
LONG = "LoadGen-driven, not an MLPerf result: the model is none of MLPerf's benchmarks"


@dataclass(frozen=True, slots=True)
class LoadgenRecord:
    """The contents of a record."""

    SCHEMA: ClassVar = "argmax-serving/loadgen/1"

    label: str
    conforming: bool
    environment: dict[str, Any]
    settings: dict[str, Any]
    results: list[Result]


def label(plan: Plan) -> str:
    """The label that must accompany every number of these runs."""
    return QUICK if plan.quick else LONG


def to_json(
    plan: Plan, environment: Mapping[str, Any], results: Sequence[Result]
) -> dict[str, Any]:
    """Make the record of a plan's runs; `conforming`: LoadGen's rules for a run's length hold."""
    return recorded(
        LoadgenRecord.SCHEMA,
        label=label(plan),
        conforming=not plan.quick,
        environment=environment,
        settings=plan,
        results=results,
    )
