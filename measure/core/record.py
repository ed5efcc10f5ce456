"""Read and write records: JSON files whose objects are dataclasses, and CSV tables of them.

The keys of an object are the fields of its class, in their order, then the properties that the
class names in `DERIVED`. A reader ignores keys that it does not know, so that it reads what a newer
version has added to.
"""

import csv
import io
import json
import math
import os
import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import msgspec

from client.errors import UsageError

_MISSING = re.compile(r"Object missing required field `(.+)`")
_WRONG = re.compile(r"Expected `(.+)`, got `(.+)`")


class Record(Protocol):
    """A record as a reader sees it: a dataclass of the keys it reads, and the schema."""

    SCHEMA: ClassVar[str]


Kind = TypeVar("Kind")
Whole = TypeVar("Whole", bound=Record)


class RecordError(UsageError):
    """A record that cannot be read: names the place, the value and the expectation."""


@dataclass(frozen=True, slots=True)
class _Header:
    schema: str


def recorded(schema: str, **content: Any) -> dict[str, Any]:
    """Make a record of a schema, its keys in the order given; see `encoded`."""
    return {"schema": schema, **{name: encoded(value) for name, value in content.items()}}


def read(content: object, kind: type[Whole]) -> Whole:
    """Read a record into the dataclass of its schema; RecordError names the invalid place."""
    found = decoded(content, _Header).schema
    if found != kind.SCHEMA:
        raise RecordError(f"the record's schema is {found!r}; this version reads {kind.SCHEMA!r}")
    return decoded(content, kind)


def decoded(content: object, kind: type[Kind]) -> Kind:
    """Make a dataclass from the output of `encoded`. RecordError if a value is missing or wrong."""
    try:
        return msgspec.convert(content, kind, dec_hook=_made)
    except msgspec.ValidationError as error:
        raise RecordError(_said(str(error))) from None


def encoded(value: Any) -> Any:
    """Convert a value for JSON: dataclasses become objects, non-finite numbers None.

    A value with `encode` and `decode` is stored as the text that `encode` returns.
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if is_dataclass(value):
        names = [field.name for field in fields(value)] + list(getattr(value, "DERIVED", ()))
        return {name: encoded(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {str(key): encoded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set):
        return [encoded(inner) for inner in (sorted(value) if isinstance(value, set) else value)]
    return value.encode() if hasattr(value, "encode") else value


def dumps(record: Any) -> str:
    """JSON text of a record, or of any value that `encoded` accepts."""
    # A Path among the settings must not lose a record that took hours.
    return json.dumps(encoded(record), indent=2, allow_nan=False, default=str) + "\n"


def write_record(path: Path, record: Any) -> None:
    """Write a record to `path`, whole or not at all. Raises OSError."""
    write_text_atomically(path, dumps(record))


def write_text_atomically(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, whole or not at all. Raises OSError."""
    # A command line that is not UTF-8 contains lone surrogates, which UTF-8 cannot encode.
    write_bytes_atomically(path, text.encode("utf-8", errors="backslashreplace"))


def write_bytes_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all; on failure an old file stays. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _made(kind: Any, value: Any) -> Any:
    """Decode the types that are not dataclasses."""
    return kind.decode(value) if hasattr(kind, "decode") else kind(value)


def _said(text: str) -> str:
    """Rephrase msgspec's error: the place, the value, the expectation."""
    what, _, place = text.rpartition(" - at `$")
    what, place = what or place, place.strip("`.") if what else ""
    if missing := _MISSING.fullmatch(what):
        return f"{place or 'the record'} lacks {missing[1]!r}"
    if wrong := _WRONG.fullmatch(what):
        what = f"got {wrong[2]}, expected {wrong[1].replace(' | ', ' or ')}"
    return f"{place or 'the record'}: {what}"


def flat(value: Mapping[str, Any], left_out: Collection[str] = ()) -> dict[str, Any]:
    """Flatten an object into one row, with a column for each value of a nested object.

    `latency_ns.p50` becomes `latency_p50_ns`, so that the unit stays last.
    """
    row: dict[str, Any] = {}
    for name, inner in value.items():
        if name in left_out or inner is None:
            continue
        if isinstance(inner, Mapping):
            row |= {_column(name, key): each for key, each in inner.items()}
        else:
            row[name] = inner
    return row


def write_table(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows under the names of their columns; missing values are empty. Raises OSError."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text_atomically(path, text.getvalue())


def _column(group: str, name: str) -> str:
    stem = group.removesuffix("_ns")
    if stem == group:
        return f"{group}_{name}"
    return f"{stem}_samples" if name == "samples" else f"{stem}_{name}_ns"
