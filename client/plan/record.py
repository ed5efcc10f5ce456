"""Keep the record of a plan as JSON, with the calibration that another plan may be made of."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from client.errors import UsageError
from client.plan.capacity import Plan
from client.plan.check import Checked
from client.plan.observed import Calibration
from client.plan.simulation import Costs
from client.record import finite

SCHEMA = "argmax-serving/plan/2"
NAME = "plan.json"


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


def read(folder: Path) -> tuple[Calibration, dict[str, Any]]:
    """The calibration of an earlier plan, and its environment; UsageError when there is none."""
    path = folder / NAME
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise UsageError(f"{path} is no JSON: {error}") from None
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != SCHEMA:
        raise UsageError(f"{path} has the schema {schema!r}; this version reads {SCHEMA!r}")
    try:
        return Calibration.from_json(content["calibration"]), content["environment"]
    except KeyError as error:
        raise UsageError(f"{path} has no {error}") from None
