"""Show the tried rates, and the highest within the bound."""

from collections.abc import Sequence

from rich.text import Text

from command_line.table import Table
from measure.engine.bisection import Found
from measure.presentation.columns import Column, in_terminal
from measure.presentation.format import BAD, milliseconds, significant
from measure.slo.slo import Trial

MET = {True: "yes", False: "no", None: "?"}
_COLUMNS: tuple[Column[Trial], ...] = (
    Column("asked/s", lambda t: significant(t.point.asked.level)),
    Column("answered/s", lambda t: significant(t.point.requests_per_s), rank=2),
    Column("p50", lambda t: milliseconds(t.point.latency_ns.p50), rank=1),
    Column("p99", lambda t: milliseconds(t.point.latency_ns.p99)),
    Column("max", lambda t: milliseconds(t.point.latency_ns.max), rank=3),
    Column("samples", lambda t: f"{t.point.latency_ns.samples:,}", rank=4),
    Column("met", lambda t: MET[t.met]),
    Column("because", lambda t: t.because, words=True),
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
    table = in_terminal(
        _COLUMNS,
        [trials],
        caption="open loop: latency in ms from when a request was due",
        elsewhere="slo.json",
    )
    untold = found.untold is not None or found.met is None
    parts: list[Table | Text] = [table, Text(answer(found, p99_ms), BAD if untold else "")]
    if unchecked_because is not None:
        parts.append(Text(f"labels are unchecked: {unchecked_because}"))
    return parts
