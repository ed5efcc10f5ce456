"""Split the time of requests into client, network and server stages."""

from dataclasses import dataclass
from typing import Literal

from measure.core.stages import longer
from measure.engine.slice import Slice
from measure.servers.statistics import ServerStatistics


@dataclass(frozen=True, slots=True)
class LoadSplit:
    """Mean nanoseconds per request in each part; None where unknown, or in an old record.

    The client's: `send_lag_ns` is from when a request was due (or, in a closed loop, from the
    answer that released it) until it was sent, `send_ns` from then until the kernel had its last
    byte, `answer_receive_ns` from the first byte of the answer until it was complete, `receive_ns`
    the time to decode it, after the time that latency counts. In records before there was
    `server_receive_ns`, `send_ns` is the time to hand the request to the transport.

    The server's, in their order: `server_receive_ns`, decode, queue, assemble, compute, handover,
    encode, `server_send_ns`. `told_by` is their source: each answer (`timings`), or ModelStatistics
    (`statistics`), whose means cover all clients' requests to the model, and whose `assemble_ns`
    includes decoding. No answer can say how long its encoding and sending take, so `encode_ns` and
    `server_send_ns` are always from ModelStatistics.

    The server receives while the client sends, and the client while the server sends. Of such a
    pair the longer one counts: `network_ns` is the rest between send and answer, at most what no
    stage explains. Without a source it includes the server's part.
    """

    told_by: Literal["timings", "statistics"] | None
    send_lag_ns: float
    send_ns: float | None
    network_ns: float
    decode_ns: float | None
    queue_ns: float | None
    assemble_ns: float | None
    compute_ns: float | None
    encode_ns: float | None
    receive_ns: float
    batch_rows: float | None
    execution_provider: str | None
    server_receive_ns: float | None = None
    handover_ns: float | None = None
    server_send_ns: float | None = None
    answer_receive_ns: float | None = None


@dataclass(frozen=True, slots=True)
class _Told:
    """The server's parts."""

    by: Literal["timings", "statistics"] | None = None
    receive_ns: float | None = None
    decode_ns: float | None = None
    queue_ns: float | None = None
    assemble_ns: float | None = None
    compute_ns: float | None = None
    handover_ns: float | None = None
    encode_ns: float | None = None
    send_ns: float | None = None
    batch_rows: float | None = None
    execution_provider: str | None = None

    @property
    def inside_ns(self) -> float:
        """From the complete message to the encoded answer."""
        parts = (
            *(self.decode_ns, self.queue_ns, self.assemble_ns, self.compute_ns),
            *(self.handover_ns, self.encode_ns),
        )
        return sum(part for part in parts if part is not None)


def split(whole: Slice, statistics: ServerStatistics | None) -> LoadSplit | None:
    """Split of the answered requests, None without any; `statistics` cover the same time."""
    if not whole.answered:
        return None
    reported = _told(whole, statistics)
    send_ns = whole.send_ns / whole.sent if whole.sent else None
    answer_receive_ns = whole.receive_ns / whole.received if whole.received else None
    round_trip_ns = whole.round_trip_ns / whole.answered
    there_ns = longer(send_ns, reported.receive_ns)
    back_ns = longer(reported.send_ns, answer_receive_ns)
    return LoadSplit(
        told_by=reported.by,
        send_lag_ns=whole.mean_send_lag_ns,
        send_ns=send_ns,
        network_ns=max(round_trip_ns - there_ns - reported.inside_ns - back_ns, 0.0),
        decode_ns=reported.decode_ns,
        queue_ns=reported.queue_ns,
        assemble_ns=reported.assemble_ns,
        compute_ns=reported.compute_ns,
        encode_ns=reported.encode_ns,
        receive_ns=whole.decode_ns / whole.answered,
        batch_rows=reported.batch_rows,
        execution_provider=reported.execution_provider,
        server_receive_ns=reported.receive_ns,
        handover_ns=reported.handover_ns,
        server_send_ns=reported.send_ns,
        answer_receive_ns=answer_receive_ns,
    )


def _told(whole: Slice, statistics: ServerStatistics | None) -> _Told:
    if whole.staged:
        means = {name: total / whole.stage_answers[name] for name, total in whole.stages.items()}
        return _Told(
            "timings",
            **means,
            encode_ns=None if statistics is None else statistics.encode_ns,
            send_ns=None if statistics is None else statistics.mean_send_ns,
            execution_provider=", ".join(sorted(whole.providers)),
        )
    # A server may implement the call and count nothing.
    if statistics is None or statistics.requests <= 0 or not statistics.infer_ns:
        return _Told()
    counted_ns = statistics.queue_ns + statistics.input_ns + statistics.infer_ns
    rest_ns = statistics.total_ns - counted_ns - statistics.output_ns
    return _Told(
        "statistics",
        receive_ns=statistics.mean_receive_ns,
        queue_ns=statistics.queue_ns / statistics.requests,
        assemble_ns=statistics.input_ns / statistics.requests,
        compute_ns=statistics.infer_ns / statistics.requests,
        handover_ns=rest_ns / statistics.requests if rest_ns >= 0 else None,
        encode_ns=statistics.encode_ns,
        send_ns=statistics.mean_send_ns,
        batch_rows=statistics.rows / max(statistics.executions, 1),
    )
