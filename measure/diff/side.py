"""Read the values of a result by which it is compared with another."""

import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from client.errors import UsageError
from measure.compare.record import CompareRecord
from measure.core.record import read
from measure.engine.bisection import Found
from measure.limits.record import LimitsRecord
from measure.load.record import LoadRecord
from measure.load.table import name
from measure.sweep.record import SweepRecord
from measure.sweep.summary import Point

# Adjacent samples are correlated, so they carry less information than their number suggests; the
# medians of so many stretches represent them.
_MOST_STRETCHES = 32
# With fewer rounds or runs nothing is claimed.
FEWEST_VALUES, FEWEST_RUNS = 10, 3

# Two results measured the same thing if they agree in these settings.
_MODEL = ("classes", "features", "dtype", "wire", "wire_scale")
_LOAD = ("model", "rows", "arrivals", "processes")


@dataclass(frozen=True, slots=True)
class Series:
    """Values over 0 of one point, one for each round, stretch, window or run.

    With fewer values than `fewest` nothing is claimed. `bound` is an interval that the measurement
    itself gives, where there is nothing to draw from.
    """

    label: str
    metric: str
    higher_is_better: bool
    values: tuple[float, ...]
    fewest: int = FEWEST_VALUES
    bound: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Side:
    """A result: its kind, settings, values, and the number of failures at each label.

    `runs` are those that its values are the medians of, `starts` how often each run started the
    server that it measured.
    """

    kind: str
    same: Mapping[str, Any]
    series: tuple[Series, ...]
    failures: Mapping[str, int]
    runs: int = 1
    starts: int = 1


def side(content: Mapping[str, Any]) -> Side:
    """Read a record. UsageError where it cannot be read, or holds nothing to compare."""
    schema = content.get("schema")
    if schema not in READERS:
        raise UsageError(f"got a record of schema {schema!r}, expected one of {', '.join(READERS)}")
    return READERS[schema](content)


def merged(runs: Sequence[Side]) -> Side:
    """Take several runs of the same thing as one result whose values are the medians of runs.

    Processes differ by chance (memory layout above all), which rounds within one process do not
    show. UsageError when they are not of the same thing.
    """
    first = runs[0]
    if len(runs) == 1:
        return first
    if any((run.kind, run.same) != (first.kind, first.same) for run in runs):
        raise UsageError("the results are not of the same thing")
    medians: dict[tuple[str, str, bool], list[float]] = {}
    failures: Counter[str] = Counter()
    for run in runs:
        failures.update(run.failures)
        for one in run.series:
            if one.values:
                place = (one.label, one.metric, one.higher_is_better)
                medians.setdefault(place, []).append(statistics.median(one.values))
    series = tuple(
        Series(label, metric, higher, tuple(values), FEWEST_RUNS)
        for (label, metric, higher), values in medians.items()
    )
    starts = min(run.starts for run in runs)
    return Side(first.kind, first.same, series, failures, len(runs), starts)


def _sweep(content: Mapping[str, Any]) -> Side:
    found = read(content, SweepRecord)
    points = found.points
    if not any(point.latencies_ns for point in points):
        raise UsageError("the sweep was recorded without its samples; measure it anew")
    return Side(
        kind="sweep",
        same=_settings(found.settings, _MODEL),
        series=tuple(_of_point(_place(p), _stretches(p.latencies_ns)) for p in points),
        failures={_place(point): point.errors + point.wrong_labels for point in points},
    )


def _comparison(content: Mapping[str, Any]) -> Side:
    found = read(content, CompareRecord)
    cells = found.cells
    labels = [f"{_place(cell.point)}, {cell.provider}" for cell in cells]
    return Side(
        kind="compare",
        same=_settings(found.settings, _MODEL),
        series=tuple(
            _of_point(label, tuple(map(float, cell.rounds_ns)))
            for label, cell in zip(labels, cells, strict=True)
        ),
        failures={
            label: cell.point.errors + cell.point.wrong_labels
            for label, cell in zip(labels, cells, strict=True)
        },
        starts=int(found.settings.get("starts") or 1),
    )


def _load(content: Mapping[str, Any]) -> Side:
    load = read(content, LoadRecord)
    if load.found is not None:
        return _search(load, load.found)
    points = load.points
    series: list[Series] = []
    for point in points:
        means = [w.mean_latency_ns for w in point.windows if w.mean_latency_ns is not None]
        rates = [window.rate_per_s for window in point.windows if window.rate_per_s > 0]
        series.append(Series(name(point), "mean latency, ms", False, _in_ms(means)))
        series.append(Series(name(point), "requests/s", True, tuple(rates)))
    failures = {name(p): sum(p.errors.values()) + (p.wrong_labels or 0) for p in points}
    return Side("load", _settings(load.settings, (*_MODEL, *_LOAD)), tuple(series), failures)


def _search(load: LoadRecord, found: Found) -> Side:
    if found.met is None or found.untold is not None:
        raise UsageError(f"the search found no rate: {load.answer}")
    highest = found.met if found.missed is None else found.missed
    rate = Series("highest rate", "requests/s", True, (found.met,), bound=(found.met, highest))
    same = _settings(load.settings, (*_MODEL, *_LOAD, "p99_ms", "modes"))
    return Side("slo", same, (rate,), {})


def _limits(content: Mapping[str, Any]) -> Side:
    found = read(content, LimitsRecord)
    series = tuple(Series(roof.name, roof.unit, True, roof.rounds) for roof in found.roofs)
    return Side("limits", _settings(found.settings, ("dtype", "threads", "ep")), series, {})


READERS = {
    SweepRecord.SCHEMA: _sweep,
    CompareRecord.SCHEMA: _comparison,
    LoadRecord.SCHEMA: _load,
    LimitsRecord.SCHEMA: _limits,
}


def _settings(settings: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {each: settings.get(each) for each in names}


def _of_point(label: str, times_ns: tuple[float, ...]) -> Series:
    return Series(label, "latency, ms", False, _in_ms(times_ns))


def _place(point: Point) -> str:
    return f"{point.mode}, batch size {point.batch_size:,}"


def _in_ms(times_ns: Sequence[float]) -> tuple[float, ...]:
    return tuple(time_ns / 1e6 for time_ns in times_ns)


def _stretches(times_ns: Sequence[int]) -> tuple[float, ...]:
    parts: Iterator[Any] = iter(
        np.array_split(np.array(times_ns, float), min(len(times_ns), _MOST_STRETCHES) or 1)
    )
    return tuple(float(np.median(part)) for part in parts if len(part))
