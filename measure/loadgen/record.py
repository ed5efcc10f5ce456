"""Keep the record of LoadGen runs as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from measure.core.record import finite, reading
from measure.loadgen.logs import Metric, Verdict
from measure.loadgen.runs import Labels, Performance, Plan, Result

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


def from_json(record: Mapping[str, Any]) -> list[Result]:
    """Results of a record. Raises RecordError on another schema or what cannot be read."""
    with reading(record, SCHEMA):
        return [_result(result) for result in record["results"]]


def _result(result: Mapping[str, Any]) -> Result:
    # That it is good follows from the rest.
    performance, accuracy = result["performance"], result["accuracy"]
    return Result(
        result["scenario"],
        None if performance is None else _performance(performance),
        None if accuracy is None else Labels(**accuracy),
        dict(result["failures"]),
    )


def _performance(content: Mapping[str, Any]) -> Performance:
    told = content["verdict"]
    nested = {
        "metric": Metric(**told["metric"]),
        "reasons": tuple(told["reasons"]),
        "errors": tuple(told["errors"]),
    }
    labels = Labels(**content["labels"])
    return Performance(**{**content, "verdict": Verdict(**{**told, **nested}), "labels": labels})
