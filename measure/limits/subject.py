"""Extract the rates and the work per row from a result, to place it under the roofs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from client.errors import UsageError
from measure.compare.record import CompareRecord
from measure.core.record import decoded, read
from measure.load.record import LoadRecord
from measure.load.table import name
from measure.sweep.record import SweepRecord
from measure.sweep.summary import Point
from measure.sweep.sweep import LOCAL_SLICE_ROWS


@dataclass(frozen=True, slots=True)
class Work:
    """Work of the linear model: bytes and operations per row, bytes of all weights."""

    row_bytes: int
    weight_bytes: int
    flop_per_row: int


@dataclass(frozen=True, slots=True)
class Rate:
    """Rows answered per second at one point of a result.

    `batch_size` is that of a batch sent alone; None under load, where batches overlap.
    `execution_rows` is how many rows shared one execution, and so one read of the weights.
    """

    label: str
    mode: str
    rows_per_s: float
    execution_rows: float
    provider: str | None
    batch_size: int | None = None


@dataclass(frozen=True, slots=True)
class Subject:
    """A result: its work and rates; `unix`: whether it used a Unix socket.

    A row has `features` in `dtype`, sent as `sent`.
    """

    work: Work
    rates: tuple[Rate, ...]
    unix: bool
    features: int
    dtype: str
    sent: str


def subject(content: Mapping[str, Any]) -> Subject:
    """Read a sweep, a comparison or a load. UsageError for a result that cannot be placed."""
    schema = content.get("schema")
    if schema not in READERS:
        raise UsageError(f"got a record of schema {schema!r}, expected one of {', '.join(READERS)}")
    settings = decoded(content, _Header).settings
    features = settings.features
    return Subject(
        work=Work(
            row_bytes=features * np.dtype(settings.sent).itemsize,
            weight_bytes=settings.classes * features * np.dtype(settings.dtype).itemsize,
            flop_per_row=2 * settings.classes * features,
        ),
        rates=tuple(rate for rate in READERS[schema](content) if rate.rows_per_s > 0),
        unix=(settings.address or "").startswith("unix:"),
        features=features,
        dtype=settings.dtype,
        sent=settings.sent,
    )


@dataclass(frozen=True, slots=True)
class _Settings:
    classes: int
    features: int
    dtype: str
    wire: str | None = None
    address: str | None = None

    @property
    def sent(self) -> str:
        return self.wire or self.dtype


@dataclass(frozen=True, slots=True)
class _Header:
    settings: _Settings


def _sweep(content: Mapping[str, Any]) -> list[Rate]:
    points = read(content, SweepRecord).points
    return [_of_point(point, f"{point.mode}") for point in points]


def _comparison(content: Mapping[str, Any]) -> list[Rate]:
    cells = read(content, CompareRecord).cells
    return [_of_point(cell.point, f"{cell.point.mode}, {cell.provider}") for cell in cells]


def _of_point(point: Point, label: str) -> Rate:
    rows = min(point.batch_size, LOCAL_SLICE_ROWS)
    return Rate(
        label=f"{label}, batch size {point.batch_size:,}",
        mode=point.mode,
        rows_per_s=point.throughput_per_s,
        execution_rows=rows if point.stages is None else point.stages.batch_rows,
        provider=None if point.stages is None else point.stages.execution_provider,
        batch_size=point.batch_size,
    )


def _load(content: Mapping[str, Any]) -> list[Rate]:
    load = read(content, LoadRecord)
    if load.unchecked_because is not None:
        raise UsageError(f"the work per row of this load is unknown: {load.unchecked_because}")
    return [
        Rate(
            label=name(point),
            mode=point.asked.mode,
            rows_per_s=point.rows_per_s,
            execution_rows=(point.split and point.split.batch_rows) or point.asked.rows,
            provider=None if point.split is None else point.split.execution_provider,
        )
        for point in load.points
    ]


READERS = {
    SweepRecord.SCHEMA: _sweep,
    CompareRecord.SCHEMA: _comparison,
    LoadRecord.SCHEMA: _load,
}
