"""Read what a server says that its model did, between two instants."""

from dataclasses import astuple, dataclass
from typing import Self

from client.client import Client
from client.errors import RequestFailed


@dataclass(frozen=True, slots=True)
class ServerStatistics:
    """Requests answered, executions, rows; nanoseconds that the requests spent in each stage.

    Sums over everyone's requests to the model, as ModelStatistics tells them.
    """

    requests: int
    executions: int
    rows: int
    queue_ns: int
    input_ns: int
    infer_ns: int
    output_ns: int

    def __sub__(self, earlier: Self) -> "ServerStatistics":
        """What was done since `earlier`."""
        now, before = astuple(self), astuple(earlier)
        return ServerStatistics(*(a - b for a, b in zip(now, before, strict=True)))


def statistics_of(client: Client) -> ServerStatistics | None:
    """What the model did since it was loaded; None where the server does not tell."""
    try:
        told = client.statistics()
    except (RequestFailed, ValueError):  # ValueError: of no version, or of one without a number
        return None
    stages = told.inference_stats
    return ServerStatistics(
        requests=stages.success.count,
        executions=told.execution_count,
        rows=told.inference_count,
        queue_ns=stages.queue.ns,
        input_ns=stages.compute_input.ns,
        infer_ns=stages.compute_infer.ns,
        output_ns=stages.compute_output.ns,
    )
