"""Where the numbers of the metrics come from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from server.batching.byte_budget import ByteBudget
from server.repository.totals import Totals
from server.rpc.accounting.call_ends import CallEnds
from server.rpc.accounting.request_ends import RequestEnds
from server.rpc.thread_pools import InFlight


@dataclass(frozen=True, slots=True)
class Sources:
    """What counts in a server.

    `connections` gives None, and `calls` counts nothing, with --transport grpcio. `dropped`: how
    much of what observes requests was lost, by what it is.
    """

    totals: Totals
    requests: RequestEnds
    calls: CallEnds
    budget: ByteBudget
    streams: InFlight
    connections: Callable[[], int | None]
    dropped: Callable[[], Mapping[str, int]]
