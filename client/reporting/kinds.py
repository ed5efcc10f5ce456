"""Know every kind of result by its schema, and find the records of some folders."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from client import load_record, provider_record, record
from client.errors import UsageError
from client.record import RecordError
from client.reporting import compare, load, sweep
from client.reporting.section import Section

# A new kind of result is a line here, and a module that makes a section of its record.
SECTIONS: dict[str, Callable[[Mapping[str, Any]], Section]] = {
    record.SCHEMA: sweep.section,
    provider_record.SCHEMA: compare.section,
    load_record.SCHEMA: load.section,
}


def section(content: Mapping[str, Any]) -> Section:
    """Return what a page shows of a record. RecordError says why it cannot be read."""
    schema = content.get("schema")
    if schema not in SECTIONS:
        raise RecordError(f"no page can be made of schema {schema!r}; wanted {_known()}")
    try:
        return SECTIONS[schema](content)
    except KeyError as error:
        raise RecordError(f"the record lacks {error}") from None
    except (TypeError, AttributeError) as error:
        raise RecordError(f"the record holds a value of a wrong type: {error}") from None


def found(places: Sequence[Path]) -> list[tuple[Path, dict[str, Any]]]:
    """Return the records in files and below folders, in order, each with its path.

    Other JSON below a folder is passed over; UsageError where a named file is none that can be
    shown, or a place holds nothing.
    """
    records: dict[Path, dict[str, Any]] = {}
    for place in places:
        if place.is_dir():
            inside = {path: _read(path) for path in sorted(place.rglob("*.json"))}
            here = {p: c for p, c in inside.items() if c is not None and c["schema"] in SECTIONS}
        else:
            content = _read(place)
            here = {} if content is None else {place: content}
        if not here:
            raise UsageError(f"{place} holds no record; wanted one of {_known()}")
        records |= here
    return list(records.items())


def _read(path: Path) -> dict[str, Any] | None:
    """Return the object in a file, if it names a schema."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None
    return content if isinstance(content, dict) and "schema" in content else None


def _known() -> str:
    return ", ".join(SECTIONS)
