"""Show the tried rates, and the highest within the bound."""

from collections.abc import Sequence

from rich.text import Text

from command_line.table import Column, Table
from measure.engine.bisection import Found
from measure.presentation.format import milliseconds, significant
from measure.slo.slo import Trial

MET = {True: "yes", False: "no", None: "?"}
_COLUMNS = (
    Column("asked/s"),
    Column("answered/s", rank=2),
    Column("p50", rank=1),
    Column("p99"),
    Column("max", rank=3),
    Column("samples", rank=4),
    Column("met"),
    Column("because", words=True),
)


def answer(found: Found, p99_ms: float) -> str:
    """The result in a sentence."""
    bound = f"p99 <= {p99_ms:g} ms"
    if found.untold is not None:
        known = "no rate was seen to meet it"
        if found.met is not None:
            known = f"{significant(found.met)} requests/s meet it"
        return f"{bound}: inconclusive at {significant(found.untold)} requests/s; {known}"
    if found.met is None:
        return f"{bound}: no rate met it, down to {significant(found.missed or 0)} requests/s"
    text = f"{bound}: {significant(found.met)} requests/s"
    if found.missed is None:
        return f"{text}, the most that was tried"
    return f"{text}; {significant(found.missed)} miss it"


def render(
    found: Found, trials: Sequence[Trial], p99_ms: float, unchecked_because: str | None
) -> list[Table | Text]:
    """The result, and a table of the points in the order of trial."""
    rows = [
        (
            significant(trial.point.asked.level),
            significant(trial.point.requests_per_s),
            *map(milliseconds, (latency.p50, latency.p99, latency.max)),
            f"{latency.samples:,}",
            MET[trial.met],
            trial.because,
        )
        for trial in trials
        for latency in [trial.point.latency_ns]
    ]
    table = Table(
        _COLUMNS,
        [rows],
        caption="open loop: latency in ms from when a request was due",
        elsewhere="slo.json",
    )
    untold = found.untold is not None or found.met is None
    parts: list[Table | Text] = [table, Text(answer(found, p99_ms), "bold red" if untold else "")]
    if unchecked_because is not None:
        parts.append(Text(f"labels are unchecked: {unchecked_because}"))
    return parts
