"""Split the time of requests into client, network and server stages."""

from dataclasses import astuple, dataclass
from typing import Literal, Self

from client.client import Client
from client.errors import RequestFailed
from measure.engine.slice import Slice


@dataclass(frozen=True, slots=True)
class ServerStatistics:
    """Requests answered, executions and rows, with the nanoseconds spent in each stage.

    Sums over all clients' requests to the model, from ModelStatistics.
    """

    requests: int
    executions: int
    rows: int
    queue_ns: int
    input_ns: int
    infer_ns: int
    output_ns: int

    def __sub__(self, earlier: Self) -> "ServerStatistics":
        """The difference since `earlier`."""
        now, before = astuple(self), astuple(earlier)
        return ServerStatistics(*(a - b for a, b in zip(now, before, strict=True)))


@dataclass(frozen=True, slots=True)
class LoadSplit:
    """Mean nanoseconds per request in each part; None where unknown.

    `send_lag_ns` is from when a request was due (or, in a closed loop, from the answer that
    released it) until it was sent, `send_ns` the time to hand it to gRPC, `receive_ns` the time to
    decode the answer, after the time that latency counts. `told_by` is the source of the server's
    parts: each answer (`timings`), or ModelStatistics (`statistics`), whose means cover all
    clients' requests to the model, and whose `assemble_ns` includes decoding. `network_ns` is the
    rest between send and answer; without a source it includes the server's part.
    """

    told_by: Literal["timings", "statistics"] | None
    send_lag_ns: float
    send_ns: float
    network_ns: float
    decode_ns: float | None
    queue_ns: float | None
    assemble_ns: float | None
    compute_ns: float | None
    encode_ns: float | None
    receive_ns: float
    batch_rows: float | None
    execution_provider: str | None


@dataclass(frozen=True, slots=True)
class _Told:
    """The server's parts."""

    by: Literal["timings", "statistics"] | None = None
    decode_ns: float | None = None
    queue_ns: float | None = None
    assemble_ns: float | None = None
    compute_ns: float | None = None
    encode_ns: float | None = None
    batch_rows: float | None = None
    execution_provider: str | None = None

    @property
    def sum_ns(self) -> float:
        """Sum of all parts."""
        parts = (self.decode_ns, self.queue_ns, self.assemble_ns, self.compute_ns, self.encode_ns)
        return sum(part for part in parts if part is not None)


def statistics_of(client: Client) -> ServerStatistics | None:
    """The model's totals since it was loaded; None if the server does not report them."""
    try:
        reported = client.statistics()
    except (RequestFailed, ValueError):  # ValueError: no version, or one that is not a number
        return None
    stages = reported.inference_stats
    return ServerStatistics(
        requests=stages.success.count,
        executions=reported.execution_count,
        rows=reported.inference_count,
        queue_ns=stages.queue.ns,
        input_ns=stages.compute_input.ns,
        infer_ns=stages.compute_infer.ns,
        output_ns=stages.compute_output.ns,
    )


def split(whole: Slice, statistics: ServerStatistics | None) -> LoadSplit | None:
    """Split of the answered requests, None without any; `statistics` cover the same time."""
    if not whole.answered:
        return None
    reported = _told(whole, statistics)
    send_ns = whole.send_ns / max(whole.send_lag.samples, 1)
    round_trip_ns = whole.round_trip_ns / whole.answered
    return LoadSplit(
        told_by=reported.by,
        send_lag_ns=whole.mean_send_lag_ns,
        send_ns=send_ns,
        network_ns=max(round_trip_ns - send_ns - reported.sum_ns, 0.0),
        decode_ns=reported.decode_ns,
        queue_ns=reported.queue_ns,
        assemble_ns=reported.assemble_ns,
        compute_ns=reported.compute_ns,
        encode_ns=reported.encode_ns,
        receive_ns=whole.receive_ns / whole.answered,
        batch_rows=reported.batch_rows,
        execution_provider=reported.execution_provider,
    )


def _told(whole: Slice, statistics: ServerStatistics | None) -> _Told:
    if whole.staged:
        means = {name: total / whole.staged for name, total in whole.stages.items()}
        return _Told("timings", **means, execution_provider=", ".join(sorted(whole.providers)))
    # A server may implement the call and count nothing.
    if statistics is None or statistics.requests <= 0 or not statistics.infer_ns:
        return _Told()
    return _Told(
        "statistics",
        queue_ns=statistics.queue_ns / statistics.requests,
        assemble_ns=statistics.input_ns / statistics.requests,
        compute_ns=statistics.infer_ns / statistics.requests,
        encode_ns=statistics.output_ns / statistics.requests,
        batch_rows=statistics.rows / max(statistics.executions, 1),
    )
