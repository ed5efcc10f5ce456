"""The record of a load, as JSON and as a CSV table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from client.version import client_name
from measure.core.record import encoded, flat, recorded, write_table
from measure.core.verdict import Passed
from measure.engine.bisection import Found
from measure.load.summary import LoadPoint
from measure.load.table import LOOPS, verdicts

_NOT_IN_CSV = (
    *("asked", "windows", "checks", "errors", "latency_histogram", "send_lag_histogram"),
    *("server", "replicas"),
)


@dataclass(frozen=True, slots=True)
class Tried:
    """A search's conclusion about a point: whether it met the bound."""

    met: Passed
    because: str


@dataclass(frozen=True, slots=True)
class LoadRecord:
    """The contents of a record; a search for a rate adds its result and that of each point."""

    SCHEMA: ClassVar = "argmax-serving/load/1"

    environment: dict[str, Any]
    settings: dict[str, Any]
    unchecked_because: str | None
    points: list[LoadPoint]
    found: Found | None = None
    answer: str = ""
    trials: list[Tried] | None = None
    # Library and version of what sent the requests; empty in records made with grpcio.
    client: str = ""


def to_json(
    settings: Mapping[str, Any],
    environment: Mapping[str, Any],
    points: Sequence[LoadPoint],
    unchecked_because: str | None,
) -> dict[str, Any]:
    """Make the record of a load; non-finite numbers become None."""
    kinds = dict.fromkeys(point.asked.loop for point in points)
    return recorded(
        LoadRecord.SCHEMA,
        environment=environment,
        client=client_name(),
        settings=settings,
        loops={kind: LOOPS[kind] for kind in kinds},
        percentiles="nearest rank; null below the samples that 99% confidence takes",
        unchecked_because=unchecked_because,
        verdicts=verdicts(points),
        points=points,
    )


def write_csv(path: Path, points: Sequence[LoadPoint]) -> None:
    """Write a row for each point, without histograms and windows. Raises OSError."""
    rows = [_flat(point) for point in points]
    columns = dict.fromkeys(column for row in rows for column in row)
    write_table(path, list(columns), rows)


def _flat(point: LoadPoint) -> dict[str, Any]:
    varied = ("concurrency", "rate_per_s")
    asked = {f"asked_{k}" if k in varied else k: v for k, v in encoded(point.asked).items()}
    values = flat(encoded(point), _NOT_IN_CSV)
    if point.server is not None:
        used = {k: v for k, v in encoded(point.server).items() if k != "counters"}
        values |= flat({"server": used})
    return asked | values | {"error_count": sum(point.errors.values())}
