"""What a server counts of a model, as ModelStatistics reports it."""

from dataclasses import astuple, dataclass
from typing import Self

from client.client import Client
from client.errors import RequestFailed


@dataclass(frozen=True, slots=True)
class ServerStatistics:
    """Requests answered, executions and rows, with the nanoseconds spent in each stage.

    Sums over all clients' requests to the model, from ModelStatistics. `total_ns` is the time from
    a complete message to its encoded answer. Only this project's server counts `received` messages
    and `sent` answers, with the time for that.
    """

    requests: int
    executions: int
    rows: int
    queue_ns: int
    input_ns: int
    infer_ns: int
    output_ns: int
    total_ns: int = 0
    received: int = 0
    receive_ns: int = 0
    sent: int = 0
    send_ns: int = 0

    def __sub__(self, earlier: Self) -> "ServerStatistics":
        """The difference since `earlier`."""
        now, before = astuple(self), astuple(earlier)
        return ServerStatistics(*(a - b for a, b in zip(now, before, strict=True)))

    def __add__(self, other: Self) -> "ServerStatistics":
        """The sums of two servers."""
        pairs = zip(astuple(self), astuple(other), strict=True)
        return ServerStatistics(*(a + b for a, b in pairs))

    @property
    def encode_ns(self) -> float | None:
        """Mean time to encode an answer; None without answers."""
        return self.output_ns / self.requests if self.requests > 0 else None

    @property
    def mean_receive_ns(self) -> float | None:
        """Mean time to receive a message; None if it is not reported."""
        return self.receive_ns / self.received if self.received > 0 else None

    @property
    def mean_send_ns(self) -> float | None:
        """Mean time from an encoded answer until the kernel had it; None if it is not reported."""
        return self.send_ns / self.sent if self.sent > 0 else None


def statistics_of(client: Client) -> ServerStatistics | None:
    """The model's totals since it was loaded; None if the server does not report them."""
    try:
        reported = client.statistics()
    except (RequestFailed, ValueError):  # ValueError: no version, or one that is not a number
        return None
    stages = reported.inference_stats
    # Looking a name up adds it to the message, with zeros.
    received, sent = (reported.response_stats[name].success for name in ("receive", "send"))
    return ServerStatistics(
        requests=stages.success.count,
        executions=reported.execution_count,
        rows=reported.inference_count,
        queue_ns=stages.queue.ns,
        input_ns=stages.compute_input.ns,
        infer_ns=stages.compute_infer.ns,
        output_ns=stages.compute_output.ns,
        total_ns=stages.success.ns,
        received=received.count,
        receive_ns=received.ns,
        sent=sent.count,
        send_ns=sent.ns,
    )
