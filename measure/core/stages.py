"""Data types for one measured batch: stage timings, labels, errors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from protos.codec import InferResponse
from protos.tensors import Parameter


@dataclass(frozen=True, slots=True)
class Stages:
    """The server's stage timings: of one request, or the mean over a batch's messages.

    Times are in nanoseconds. `batch_rows` is the number of rows the server ran together, which may
    come from several requests. `execution_provider` is ONNX Runtime's name. In local mode a slice
    of the batch counts as a message, and rounding it as assembling.
    """

    decode_ns: int
    queue_ns: int
    assemble_ns: int
    compute_ns: int
    batch_rows: float
    execution_provider: str


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured batch; instants are `time.perf_counter_ns` values.

    `rows` is the number of predictions returned. Of their labels, `disagreements` differ from the
    float64 reference's; `near_ties` are rows too close to call in the model's own precision;
    `wrong_labels` are disagreements that neither a near tie nor rounding on the wire explains.
    `error` is None if every row was answered. `messages` is how many carried the batch to a server.
    Warm-up runs never become samples.
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

    @property
    def latency_ns(self) -> int:
        """Nanoseconds from the start to the last prediction, or to the failure."""
        return self.done_ns - self.started_ns

    @property
    def first_prediction_ns(self) -> int:
        """Nanoseconds from the start to the first prediction."""
        return self.first_ns - self.started_ns


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
    )


def _mean(timings: Sequence[Mapping[str, Parameter]], name: str) -> float:
    return float(np.mean([float(parameters[name]) for parameters in timings]))
