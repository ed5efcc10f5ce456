"""Write tables of records as CSV."""

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from measure.core.record import write_text_atomically


def flat(value: Mapping[str, Any], left_out: Collection[str] = ()) -> dict[str, Any]:
    """Return an object as one row: of an object inside it, each value has a column.

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


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows under the names of their columns; what a row lacks is empty. Raises OSError."""
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
