"""Keep the record of a sweep as JSON, the source of every other view."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from measure.core.record import RecordError, finite, write_text_atomically
from measure.sweep.summary import Point, Spread, StageSplit, warnings

SCHEMA = "argmax-serving/sweep/1"

_RAW = "latencies_ns"
_SPREADS = ("latency_ns", "first_prediction_ns")
# The order in which a point is written; the first nine are promised to readers of any version.
_POINT = (
    "mode",
    "batch_size",
    *_SPREADS,
    "throughput_per_s",
    "wrong_labels",
    "near_ties",
    "errors",
    "rows",
    "elapsed_ns",
    "agreement",
    "error_kinds",
    "stages",
    "server_peak_rss_bytes",
    "messages",
    _RAW,
)
_MAY_BE_NULL = {"agreement", "stages", "server_peak_rss_bytes", "other_ns"}
_NOT_IN_CSV = {"error_kinds", _RAW}
_TEXTS = {"mode", "execution_provider"}


def to_json(
    settings: Mapping[str, Any], environment: Mapping[str, Any], points: Sequence[Point]
) -> dict[str, Any]:
    """Record of a sweep, ready for `dumps`; a number that is not finite becomes None."""
    record = {
        "schema": SCHEMA,
        "environment": dict(environment),
        "settings": dict(settings),
        "points": [point_to_json(point) for point in points],
        "findings": [asdict(finding) for finding in warnings(points, environment)],
    }
    return {name: finite(value) for name, value in record.items()}


def from_json(record: object) -> list[Point]:
    """Points of a record. Raises RecordError on another schema, a missing key or a wrong type."""
    whole = _object(record, "the record")
    schema = _get(whole, "schema", "the record")
    if schema != SCHEMA:
        raise RecordError(f"the record's schema is {schema!r}; this version reads {SCHEMA!r}")
    for key in ("environment", "settings"):
        _object(_get(whole, key, "the record"), key)
    points = _get(whole, "points", "the record")
    if not isinstance(points, list):
        raise RecordError(f"points is {type(points).__name__}; it must be a list")
    return [point_from_json(point, f"points[{i}]") for i, point in enumerate(points)]


def write_csv(path: Path, points: Sequence[Point]) -> None:
    """Write one row per point under flat column names; what is None is empty. Raises OSError."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, _csv_columns(), restval="", lineterminator="\n")
    writer.writeheader()
    for point in points:
        writer.writerow(_flat(finite(point_to_json(point))))
    write_text_atomically(path, text.getvalue())


def _csv_columns() -> list[str]:
    columns: list[str] = []
    for name in _POINT:
        if name in _SPREADS:
            columns += [_column(name, field.name) for field in fields(Spread)]
        elif name == "stages":
            columns += [_column(name, field.name) for field in fields(StageSplit)]
        elif name not in _NOT_IN_CSV:
            columns.append(name)
    return columns


def _column(group: str, name: str) -> str:
    # latency_ns.p50 becomes latency_p50_ns: the unit stays last.
    if group not in _SPREADS:
        return f"{group}_{name}"
    stem = group.removesuffix("_ns")
    return f"{stem}_samples" if name == "samples" else f"{stem}_{name}_ns"


def _flat(point: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name, value in point.items():
        if name in _NOT_IN_CSV or value is None:
            continue
        if isinstance(value, dict):
            row |= {_column(name, key): inner for key, inner in value.items()}
        else:
            row[name] = value
    return row


def point_to_json(point: Point) -> dict[str, Any]:
    """Return a point by its names, in the order in which they are written."""
    flat = asdict(point)
    return {name: flat[name] for name in _POINT}


def point_from_json(value: object, where: str) -> Point:
    """Return the point; RecordError says what of it is missing or of a wrong type."""
    whole = _object(value, where)
    point = _fields(whole, [name for name in _POINT if name != _RAW], where)
    for name in _SPREADS:
        inner = f"{where}.{name}"
        names = [field.name for field in fields(Spread)]
        empty = _object(point[name], inner).get("samples") == 0
        point[name] = Spread(**_fields(point[name], names, inner, names[:-1] if empty else ()))
    if point["stages"] is not None:
        names = [field.name for field in fields(StageSplit)]
        point["stages"] = StageSplit(**_fields(point["stages"], names, f"{where}.stages"))
    kinds = _object(point["error_kinds"], f"{where}.error_kinds")
    for text, count in kinds.items():
        _check(count, f"{where}.error_kinds[{text!r}]")
    point["error_kinds"] = dict(kinds)
    point[_RAW] = _times(whole.get(_RAW, []), f"{where}.{_RAW}")
    return Point(**point)


def _fields(
    value: object, names: Sequence[str], where: str, may_be_null: Sequence[str] = ()
) -> dict[str, Any]:
    whole = _object(value, where)
    found = {name: _get(whole, name, where) for name in names}
    for name, inner in found.items():
        if name in (*_SPREADS, "stages", "error_kinds"):
            continue
        if inner is None and (name in _MAY_BE_NULL or name in may_be_null):
            continue
        _check(inner, f"{where}.{name}", text=name in _TEXTS)
    return found


def _times(value: object, where: str) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise RecordError(f"{where} is {type(value).__name__}; it must be a list")
    for number, time_ns in enumerate(value):
        _check(time_ns, f"{where}[{number}]")
    return tuple(value)


def _check(value: object, where: str, text: bool = False) -> None:
    wanted = str if text else int | float
    if not isinstance(value, wanted) or isinstance(value, bool):
        raise RecordError(f"{where} is {value!r}; it must be {'text' if text else 'a number'}")


def _object(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise RecordError(f"{where} is {type(value).__name__}; it must be an object")
    return value


def _get(whole: Mapping[str, Any], key: str, where: str) -> Any:
    if key not in whole:
        raise RecordError(f"{where} lacks {key!r}")
    return whole[key]
