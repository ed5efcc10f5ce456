"""The part that one of several servers has in a measured point."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from measure.servers.server_use import ServerUse


@dataclass(frozen=True, slots=True)
class ReplicaPart:
    """What one of several servers did of a point's requests, as the client saw it.

    `address` is where it was connected to; empty for requests that reached no server, or whose
    server is not known. `requests` and `rows` were answered without error, and the percentiles are
    theirs, None with too few samples; `share` is the part of all answered ones, None without any.
    `errors` counts its failed requests by code. `resent` counts requests that it was sent in vain,
    because it was unavailable or cut the call, and that were sent again: these count where they
    ended. `wrong_labels` is None if the expected labels are unknown. `serving`: whether it accepted
    requests at the end of the point, `server`: what it reports about the time of the point; None
    where that is unknown.
    """

    DERIVED: ClassVar = ("failed",)

    address: str
    requests: int
    rows: int
    share: float | None
    p50_ns: int | None
    p99_ns: int | None
    errors: dict[str, int] = field(default_factory=dict)
    resent: int = 0
    wrong_labels: int | None = None
    serving: bool | None = None
    server: ServerUse | None = None

    @property
    def failed(self) -> int:
        """Number of its failed requests."""
        return sum(self.errors.values())


def shared(parts: Sequence[ReplicaPart]) -> tuple[ReplicaPart, ...]:
    """The parts, each with its share of all answered requests."""
    whole = sum(part.requests for part in parts)
    return tuple(replace(part, share=part.requests / whole if whole else None) for part in parts)
