"""Keep the record of a load as JSON, and as a table in CSV."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from measure.core.record import finite, reading, write_text_atomically
from measure.engine.windows import Window
from measure.load.split import LoadSplit
from measure.load.summary import Asked, Check, Latency, LoadPoint
from measure.load.table import LOOPS, verdicts

SCHEMA = "argmax-serving/load/1"

_VARIED = ("concurrency", "rate_per_s")
_NOT_IN_CSV = ("windows", "checks", "errors", "latency_histogram", "send_lag_histogram")


def to_json(
    settings: Mapping[str, Any],
    environment: Mapping[str, Any],
    points: Sequence[LoadPoint],
    unchecked_because: str | None,
) -> dict[str, Any]:
    """Record of a load, ready for `record.dumps`."""
    kinds = dict.fromkeys(point.asked.loop for point in points)
    content = {
        "schema": SCHEMA,
        "environment": dict(environment),
        "settings": dict(settings),
        "loops": {kind: LOOPS[kind] for kind in kinds},
        "percentiles": "nearest rank; null below the samples that 99% confidence takes",
        "unchecked_because": unchecked_because,
        "verdicts": verdicts(points),
        "points": [point.to_json() for point in points],
    }
    return {key: finite(value) for key, value in content.items()}


def from_json(record: Mapping[str, Any]) -> list[LoadPoint]:
    """Points of a record. Raises RecordError on another schema or what cannot be read."""
    with reading(record, SCHEMA):
        return [_point(point) for point in record["points"]]


def _point(point: Mapping[str, Any]) -> LoadPoint:
    # That it is valid follows from its checks.
    told = {name: value for name, value in point.items() if name != "valid"}
    from_send = told.get("from_send_ns")
    nested = {
        "asked": Asked(**told["asked"]),
        "latency_ns": Latency(**told["latency_ns"]),
        "send_lag_ns": Latency(**told["send_lag_ns"]),
        "from_send_ns": None if from_send is None else Latency(**from_send),
        "split": None if told["split"] is None else LoadSplit(**told["split"]),
        "windows": tuple(Window(**window) for window in told["windows"]),
        "checks": tuple(Check(**check) for check in told["checks"]),
    }
    return LoadPoint(**{**told, **nested})


def write_csv(path: Path, points: Sequence[LoadPoint]) -> None:
    """Write a row for each point, histograms and windows left out. Raises OSError."""
    rows = [_flat(point) for point in points]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text_atomically(path, text.getvalue())


def _flat(point: LoadPoint) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for key, value in point.to_json().items():
        if key in _NOT_IN_CSV:
            continue
        if key == "asked":
            row |= {
                f"asked_{name}" if name in _VARIED else name: inner for name, inner in value.items()
            }
        elif key.endswith("_ns") and isinstance(value, dict):
            # latency_ns.p50 becomes latency_p50_ns: the unit stays last.
            stem = key.removesuffix("_ns")
            row |= {f"{stem}_{name}_ns": inner for name, inner in value.items()}
            row[f"{stem}_samples"] = row.pop(f"{stem}_samples_ns")
        elif isinstance(value, dict):
            row |= {f"{key}_{name}": inner for name, inner in value.items()}
        elif value is not None:
            row[key] = value
    row["error_count"] = sum(point.errors.values())
    return row
