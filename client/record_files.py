"""Find the records of results among files and folders."""

import json
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

from client.errors import UsageError

_PREFIX = "argmax-serving/"


def found(places: Sequence[Path], schemas: Container[str]) -> list[tuple[Path, dict[str, Any]]]:
    """Return the records of some schemas in files and below folders, in order, with their paths.

    Other JSON below a folder is passed over. UsageError for a file that is none of them, and for a
    folder without any; OSError where there is nothing.
    """
    records: dict[Path, dict[str, Any]] = {}
    for place in places:
        here = [place] if not place.is_dir() else sorted(place.rglob("*.json"))
        read = {path: _read(path) for path in here}
        known = {path: c for path, c in read.items() if c is not None and c["schema"] in schemas}
        if not known:
            told = sorted({str(c["schema"]) for c in read.values() if c is not None})
            raise UsageError(f"{place}: no result that can be used" + _but(told))
        records |= known
    return list(records.items())


def _but(told: Sequence[str]) -> str:
    return f", only {', '.join(told)}" if told else ""


def _read(path: Path) -> dict[str, Any] | None:
    """Return the object in a file, if it names a schema of this project."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None
    if not isinstance(content, dict) or not str(content.get("schema")).startswith(_PREFIX):
        return None
    return content
