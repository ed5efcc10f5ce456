"""Data types for one measured batch: stage timings of server and client, labels, errors."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from client.connection.call_times import CallTimes
from protos.codec import InferResponse
from protos.tensors import Parameter

RECEIVE_UNKNOWN = (
    "the server reports no time for receiving messages (with --transport grpcio, and in older "
    "versions, it does not know it)"
)


@dataclass(frozen=True, slots=True)
class Stages:
    """The server's stage timings: of one request, or the mean over a batch's messages.

    Times are in nanoseconds. `batch_rows` is the number of rows the server ran together, which may
    come from several requests. `execution_provider` is ONNX Runtime's name. `receive_ns` is the
    time from the first byte of a message until it was complete, and overlaps with the client's
    sending; `handover_ns` that from the end of the computation until the answer was encoded. None
    where the server does not report them. In local mode a slice of the batch counts as a message,
    and rounding it as assembling.
    """

    decode_ns: int
    queue_ns: int
    assemble_ns: int
    compute_ns: int
    batch_rows: float
    execution_provider: str
    receive_ns: int | None = None
    handover_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured batch; instants are `time.perf_counter_ns` values.

    `rows` is the number of predictions returned. Of their labels, `disagreements` differ from the
    float64 reference's; `near_ties` are rows too close to call in the model's own precision;
    `wrong_labels` are disagreements that neither a near tie nor rounding on the wire explains.
    `error` is None if every row was answered. `messages` is how many carried the batch to a server.
    `send_ns` and `receive_ns` are the client's, of a batch in one message: until the kernel had it,
    and from the first byte of the answer; None where unknown. `server` is the address of the server
    that it ended at, empty if unknown, and `lost` has those that left it unanswered before. Warm-up
    runs never become samples.
    """

    mode: str
    batch_size: int
    started_ns: int
    first_ns: int
    done_ns: int
    rows: int
    wrong_labels: int = 0
    near_ties: int = 0
    disagreements: int = 0
    error: str | None = None
    messages: int = 0
    stages: Stages | None = None
    send_ns: int | None = None
    receive_ns: int | None = None
    server: str = ""
    lost: tuple[str, ...] = ()

    @property
    def latency_ns(self) -> int:
        """Nanoseconds from the start to the last prediction, or to the failure."""
        return self.done_ns - self.started_ns

    @property
    def first_prediction_ns(self) -> int:
        """Nanoseconds from the start to the first prediction."""
        return self.first_ns - self.started_ns


@dataclass(slots=True)
class RequestTimes:
    """The client's part of one request, which begins where this is made.

    `decode_ns` is the time that decoding the answer took so far, `answer_bytes` the length of the
    encoded answer.
    """

    call: CallTimes = field(default_factory=CallTimes)
    began_ns: int = field(default_factory=time.monotonic_ns)
    received_ns: int = 0
    decode_ns: int = 0
    answer_bytes: int = 0

    def received(self) -> None:
        """The answer is complete."""
        self.received_ns = time.monotonic_ns()

    @property
    def send_ns(self) -> int | None:
        """Nanoseconds until the kernel had the last byte of the request; None if unknown."""
        return self.call.sent_ns - self.began_ns if self.call.sent_ns else None

    @property
    def receive_ns(self) -> int | None:
        """Nanoseconds from the first byte of the answer until it was complete; None if unknown."""
        if not (self.received_ns and self.call.answer_began_ns):
            return None
        return self.received_ns - self.call.answer_began_ns


def stages_of(responses: Sequence[InferResponse]) -> Stages | None:
    """Mean over the messages of a batch; None if the server reports no timings."""
    timings = [response.parameters for response in responses]
    if any("compute_ns" not in parameters for parameters in timings):
        return None
    return Stages(
        decode_ns=int(_mean(timings, "decode_ns")),
        queue_ns=int(_mean(timings, "queue_ns")),
        assemble_ns=int(_mean(timings, "assemble_ns")),
        compute_ns=int(_mean(timings, "compute_ns")),
        batch_rows=_mean(timings, "batch_rows"),
        execution_provider=str(timings[0]["execution_provider"]),
        receive_ns=_mean_if_known(timings, "receive_ns"),
        handover_ns=_mean_if_known(timings, "handover_ns"),
    )


def longer(one_ns: float | None, other_ns: float | None) -> float:
    """The time that two stages which overlap take at least; None counts 0.

    The client's sending and the server's receiving of a message are such stages. The clocks of two
    machines cannot say how far they overlap.
    """
    return max(one_ns or 0.0, other_ns or 0.0)


def _mean_if_known(timings: Sequence[Mapping[str, Parameter]], name: str) -> int | None:
    known = all(name in parameters for parameters in timings)
    return int(_mean(timings, name)) if known else None


def _mean(timings: Sequence[Mapping[str, Parameter]], name: str) -> float:
    return float(np.mean([float(parameters[name]) for parameters in timings]))
