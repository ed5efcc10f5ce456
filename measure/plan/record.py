"""Keep the record of a plan as JSON, with the calibration that another plan may be made of."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from client.errors import UsageError
from measure.core import record_files
from measure.core.record import RecordError, finite, reading
from measure.plan.capacity import Goal, Option, Plan
from measure.plan.check import Checked
from measure.plan.fit import Predicted
from measure.plan.observed import Calibration, Observation
from measure.plan.simulation import Costs
from server.batching.policy import Limits

SCHEMA = "argmax-serving/plan/2"
NAME = "plan.json"


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a record holds; `plan` None: nothing was planned."""

    goal: Goal
    calibration: Calibration
    costs: Costs
    checks: tuple[Checked, ...]
    plan: Plan | None


def to_json(
    settings: Mapping[str, Any],
    environment: Mapping[str, Any],
    calibration: Calibration,
    costs: Costs,
    checks: Sequence[Checked],
    plan: Plan | None,
    answer: str,
) -> dict[str, Any]:
    """Record of a plan, ready for `record.dumps`; the environment is the calibration's."""
    content = {
        "schema": SCHEMA,
        "environment": dict(environment),
        "settings": dict(settings),
        "calibration": calibration.to_json(),
        "costs": asdict(costs),
        "checks": [
            {**asdict(one), "p99_error": one.error, "verdict": one.verdict} for one in checks
        ],
        "plan": None if plan is None else asdict(plan),
        "answer": answer,
    }
    return {key: finite(value) for key, value in content.items()}


def from_json(record: Mapping[str, Any]) -> Recorded:
    """Read a record. Raises RecordError on another schema or what cannot be read."""
    with reading(record, SCHEMA):
        settings, planned = record["settings"], record["plan"]
        try:
            calibration = Calibration.from_json(record["calibration"])
        except UsageError as error:
            raise RecordError(str(error)) from None
        return Recorded(
            Goal(settings["rate"], settings["p99_ms"] * 1e6, settings["link_gbit"] * 1e9),
            calibration,
            Costs(**record["costs"]),
            tuple(_checked(one) for one in record["checks"]),
            None if planned is None else _plan(planned),
        )


def _checked(content: Mapping[str, Any]) -> Checked:
    return Checked(Observation.from_json(content["load"]), Predicted(**content["predicted"]))


def _plan(content: Mapping[str, Any]) -> Plan:
    options = tuple(_option(option) for option in content["options"])
    return Plan(**{**content, "chosen": _option(content["chosen"]), "options": options})


def _option(content: Mapping[str, Any]) -> Option:
    return Option(Limits(**content["limits"]), Predicted(**content["predicted"]))


def read(folder: Path) -> tuple[Calibration, dict[str, Any]]:
    """The calibration of an earlier plan, and its environment; UsageError when there is none."""
    path = folder / NAME
    ((_, content),) = record_files.found([path], [SCHEMA])
    with record_files.naming(path):
        return Calibration.from_json(content["calibration"]), content["environment"]
