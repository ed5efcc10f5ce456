"""Count the requests that were answered within a bound."""

from dataclasses import dataclass

from measure.engine.slice import Slice


@dataclass(frozen=True, slots=True)
class Goodput:
    """Requests answered without error within `bound_ms`, per second.

    `share` is that of all requests that ended meanwhile, the failed ones too; None if none did.
    Latency counts as everywhere: in an open loop from when a request was due.
    """

    bound_ms: float
    requests_per_s: float
    share: float | None


def goodput(whole: Slice, bound_ms: float) -> Goodput:
    """The goodput of the windows of a load together."""
    within = whole.latency.within(round(bound_ms * 1e6))
    ended = whole.answered + whole.errors.total()
    return Goodput(
        bound_ms=bound_ms,
        requests_per_s=within * 1e9 / whole.elapsed_ns,
        share=within / ended if ended else None,
    )
