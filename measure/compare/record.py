"""Keep the record of a comparison of execution providers as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from measure.compare.analysis import Analysis
from measure.compare.findings import findings
from measure.compare.runs import Cell, Measured, Provider
from measure.core.record import finite, reading
from measure.sweep.record import point_from_json, point_to_json

SCHEMA = "argmax-serving/compare/1"


def to_json(
    settings: Mapping[str, Any],
    environment: Mapping[str, Any],
    analysis: Analysis,
    broken: Sequence[str] = (),
) -> dict[str, Any]:
    """Record of a comparison; `broken` says which limits were.

    Providers and cells are what was measured, all else follows from them. A number without a bound
    is null.
    """
    measured = analysis.measured
    whole = {
        "schema": SCHEMA,
        "environment": dict(environment),
        "settings": dict(settings),
        "providers": [asdict(provider) for provider in measured.providers],
        "cells": [
            {"provider": cell.provider, "agreement_or_near_tie": cell.agreement}
            | {"rounds_ns": list(cell.rounds_ns), "point": point_to_json(cell.point)}
            for cell in measured.cells
        ],
        "pairs": [asdict(pair) for pair in analysis.pairs],
        "verdicts": [
            {"mode": mode, "batch_size": size, "verdict": verdict}
            for (mode, size), verdict in analysis.verdicts.items()
        ],
        "lines": [asdict(line) for line in analysis.lines],
        "crossovers": [
            asdict(meeting) | {"established": meeting.crossover.established}
            for meeting in analysis.meetings
        ],
        "findings": [asdict(finding) for finding in findings(analysis, environment)],
        "broken_limits": list(broken),
    }
    record: dict[str, Any] = finite(whole)
    return record


def from_json(record: Mapping[str, Any]) -> Measured:
    """Return what was measured. Raises RecordError on another schema or what cannot be read."""
    with reading(record, SCHEMA):
        providers = tuple(
            Provider(
                label=str(one["label"]),
                spec=str(one["spec"]),
                start_ups_ns=tuple(one["start_ups_ns"]),
                server_peak_rss_bytes=one["server_peak_rss_bytes"],
            )
            for one in record["providers"]
        )
        cells = tuple(
            Cell(
                provider=str(one["provider"]),
                point=point_from_json(one["point"], f"cells[{number}].point"),
                rounds_ns=tuple(one["rounds_ns"]),
            )
            for number, one in enumerate(record["cells"])
        )
    return Measured(providers, cells)
