"""The record of a plan as JSON, with its calibration, which another plan can reuse."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from measure.core import record_files
from measure.core.record import decoded, recorded
from measure.plan.capacity import Demand, Plan
from measure.plan.check import Checked
from measure.plan.fleet import FleetCheck
from measure.plan.observed import Calibration
from measure.plan.simulation import Costs

NAME = "plan.json"


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a plan; `result` names an earlier plan whose calibration is reused."""

    rate: float
    p99_ms: float
    link_gbit: float
    address: str | None = None
    result: str | None = None


@dataclass(frozen=True, slots=True)
class PlanRecord:
    """The contents of a record; `plan` None: nothing was planned."""

    SCHEMA: ClassVar = "argmax-serving/plan/2"

    environment: dict[str, Any]
    settings: Settings
    calibration: Calibration
    costs: Costs
    checks: list[Checked]
    plan: Plan | None
    answer: str
    # Of several servers; None for a single one, and in old records.
    fleet: FleetCheck | None = None

    @property
    def demand(self) -> Demand:
        """The demand that the plan meets."""
        asked = self.settings
        return Demand(asked.rate, asked.p99_ms * 1e6, asked.link_gbit * 1e9)


def to_json(
    settings: Mapping[str, Any],
    environment: Mapping[str, Any],
    calibration: Calibration,
    costs: Costs,
    checks: Sequence[Checked],
    plan: Plan | None,
    answer: str,
    fleet: FleetCheck | None = None,
) -> dict[str, Any]:
    """Make the record of a plan; the environment is the calibration's. `fleet`: see FleetCheck."""
    return recorded(
        PlanRecord.SCHEMA,
        environment=environment,
        settings=settings,
        calibration=calibration,
        costs=costs,
        checks=checks,
        plan=plan,
        answer=answer,
        fleet=fleet,
    )


@dataclass(frozen=True, slots=True)
class _Earlier:
    environment: dict[str, Any]
    calibration: Calibration


def earlier(folder: Path) -> tuple[Calibration, dict[str, Any]]:
    """The calibration of an earlier plan, and its environment; UsageError if there is none."""
    path = folder / NAME
    ((_, content),) = record_files.found([path], [PlanRecord.SCHEMA])
    with record_files.naming(path):
        found = decoded(content, _Earlier)
    return found.calibration, found.environment
