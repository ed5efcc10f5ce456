"""Format settings and environment as names and texts."""

from collections.abc import Iterable, Mapping
from typing import Any

from measure.presentation.format import significant


def rows(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Names beside values as text; nested names are joined by dots."""
    answer: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            answer += rows(value, f"{prefix}{name}.")
        else:
            answer.append((f"{prefix}{name}", _value(name, value)))
    return answer


def place(environment: Mapping[str, Any]) -> str:
    """Processor and cores in words; empty where the record does not say."""
    cores = environment.get("cores")
    parts = [environment.get("cpu_model"), f"{cores} cores" if cores else None]
    return ", ".join(str(part) for part in parts if part)


def on(environment: Mapping[str, Any]) -> str:
    """`, on PROCESSOR, CORES`, for the end of a sentence; empty where the record does not say."""
    where = place(environment)
    return f", on {where}" if where else ""


def _value(name: str, value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and name.endswith("_bytes"):
        return f"{value:,} ({significant(value / 2**20)} MiB)"
    if isinstance(value, float) and name.endswith("_fraction"):
        return f"{value:.2%}"
    if isinstance(value, Iterable) and not isinstance(value, str):
        return ", ".join(str(inner) for inner in value)
    return str(value)
