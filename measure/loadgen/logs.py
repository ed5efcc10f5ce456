"""Read LoadGen's logs: verdict, numbers, logged answers."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SUMMARY, DETAIL, ACCURACY = (
    "mlperf_log_summary.txt",
    "mlperf_log_detail.txt",
    "mlperf_log_accuracy.json",
)
VALID, INVALID = "VALID", "INVALID"
_DETAIL_PREFIX = ":::MLLOG "
# Percentiles of queries if LoadGen reports them, else of samples.
_PERCENTILES = tuple(
    re.compile(rf"result_(\d+\.\d+)_percentile_{of}latency_ns") for of in ("per_query_", "")
)


class LogError(ValueError):
    """A log is incomplete; the text names the missing part."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A scenario's metric: LoadGen's name for it, with the unit, and the value."""

    name: str
    value: float


@dataclass(frozen=True, slots=True)
class Summary:
    """LoadGen's result of a performance run.

    `verdict` is VALID or INVALID, `reasons` explain INVALID; `errors` are those that LoadGen
    logged. `percentiles_ns` are LoadGen's, keyed as it writes them ("99.00"): of queries in
    MultiStream, else of samples. `estimate_ns` is the early-stopping estimate of the percentile,
    None if there is none.
    """

    verdict: str
    reasons: tuple[str, ...]
    metric: Metric
    percentiles_ns: dict[str, int]
    queries: int
    estimate_ns: int | None
    errors: tuple[str, ...]
    version: str


def verdict(folder: Path) -> Summary:
    """Read a performance run's summary and detail logs. Raises OSError, LogError."""
    summary = (folder / SUMMARY).read_text()
    detail = details(folder)
    said = _found(r"^Result is : (\w+)$", summary)
    # The summary tolerates too few queries, the detail log does not.
    agreed = said == detail.get("result_validity") == VALID
    estimate = detail.get("early_stopping_latency_ss") or detail.get("early_stopping_latency_ms")
    return Summary(
        VALID if agreed else INVALID,
        () if agreed else tuple(_reasons(summary, detail)),
        _metric(summary),
        _percentiles(detail),
        int(detail.get("result_query_count", 0)),
        int(estimate) if estimate else None,
        tuple(errors(folder)),
        str(detail.get("loadgen_version", "")),
    )


def details(folder: Path) -> dict[str, Any]:
    """Values of the detail log by key; the last one of repeated keys."""
    return {entry["key"]: entry["value"] for entry in _entries(folder)}


def errors(folder: Path) -> Iterator[str]:
    """Errors that LoadGen logged."""
    for entry in _entries(folder):
        if entry["metadata"]["is_error"]:
            yield f"{entry['key']}: {entry['value']}"


def labels(folder: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """Examples and their labels that LoadGen logged, both int64 `[n]`.

    Raises OSError, LogError.
    """
    try:
        entries = json.loads((folder / ACCURACY).read_text())
        indices = [int(entry["qsl_idx"]) for entry in entries]
        data = b"".join(bytes.fromhex(entry["data"]) for entry in entries)
    except (ValueError, KeyError, TypeError) as error:
        raise LogError(f"{folder / ACCURACY} cannot be read: {error}") from None
    if len(data) != 8 * len(indices):
        raise LogError(f"{folder / ACCURACY} has {len(data)} bytes for {len(indices)} labels")
    return np.array(indices, np.int64), np.frombuffer(data, "<i8")


def _entries(folder: Path) -> Iterator[dict[str, Any]]:
    path = folder / DETAIL
    for line in path.read_text().splitlines():
        if line.startswith(_DETAIL_PREFIX):
            try:
                yield json.loads(line.removeprefix(_DETAIL_PREFIX))
            except ValueError as error:
                raise LogError(f"{path} cannot be read: {error}") from None


def _percentiles(detail: Mapping[str, Any]) -> dict[str, int]:
    for pattern in _PERCENTILES:
        found = {
            match[1]: int(value)
            for key, value in detail.items()
            if (match := pattern.fullmatch(key))
        }
        if found:
            break
    return found


def _metric(summary: str) -> Metric:
    """The line between the mode and the verdict."""
    name = r"^Mode +: \w+\n(.+?) *: *[\d.e+-]+$"
    value = r"^Mode +: \w+\n.+?: *([\d.e+-]+)$"
    return Metric(_found(name, summary), float(_found(value, summary)))


def _reasons(summary: str, detail: Mapping[str, Any]) -> Iterator[str]:
    for what in re.findall(r"^  (.+?) *: NO$", summary, re.MULTILINE):
        yield f"{what}: no"
    if not detail.get("result_min_queries_met", True):
        yield "Min queries satisfied: no"
    # A recommendation may span several lines; the first has a star.
    advice = re.findall(r"^ \* (.+(?:\n {1,3}\w.*)*)$", summary, re.MULTILINE)
    yield from (" ".join(text.split()) for text in advice)


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text, re.MULTILINE)
    if match is None:
        raise LogError(f"LoadGen's summary lacks {pattern}")
    return match[1]
