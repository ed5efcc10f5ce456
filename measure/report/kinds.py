"""Know every kind of result by its schema."""

from collections.abc import Callable, Mapping
from typing import Any

from measure.compare.record import CompareRecord
from measure.core.comparison import COMPARE_SCHEMA, LOAD_SCHEMA
from measure.core.record import RecordError
from measure.limits.record import LimitsRecord
from measure.load.record import LoadRecord
from measure.loadgen.record import LoadgenRecord
from measure.plan.record import PlanRecord
from measure.report.section import Section
from measure.report.sections import calibration, compare, goals, limits, load, loadgen, plan, sweep
from measure.sweep.record import SweepRecord

# A new kind of result is a line here, and a module that makes a section of its record.
SECTIONS: dict[str, Callable[[Mapping[str, Any]], Section]] = {
    SweepRecord.SCHEMA: sweep.section,
    CompareRecord.SCHEMA: compare.section,
    LoadRecord.SCHEMA: load.section,
    LimitsRecord.SCHEMA: limits.section,
    COMPARE_SCHEMA: calibration.section,
    LOAD_SCHEMA: calibration.section,
    LoadgenRecord.SCHEMA: loadgen.section,
    PlanRecord.SCHEMA: plan.section,
    goals.BENCH: goals.section,
    **dict.fromkeys(goals.OVERLOADS, goals.section),
}


def section(content: Mapping[str, Any]) -> Section:
    """Return what a page shows of a record.

    RecordError when it is of no known schema; of one whose values are not what they should be, a
    section may raise whatever `record_files.naming` knows.
    """
    schema = content.get("schema")
    if schema not in SECTIONS:
        raise RecordError(
            f"no page can be made of schema {schema!r}, expected one of {', '.join(SECTIONS)}"
        )
    return SECTIONS[schema](content)
