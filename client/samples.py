"""Hold what was observed of one measured batch."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stages:
    """Where the engine's side says the time went: one request, or the mean over a batch's messages.

    Times are in nanoseconds. `batch_rows` is the number of rows the server ran together, which
    may come from several requests. `execution_provider` is ONNX Runtime's name of what ran it. In
    local mode a slice of the batch counts as a message, and rounding it as assembling.
    """

    decode_ns: int
    queue_ns: int
    assemble_ns: int
    compute_ns: int
    batch_rows: float
    execution_provider: str


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured batch; the instants are nanoseconds of `time.perf_counter_ns`.

    `rows` is how many predictions came back. Of their labels, `disagreements` differ from the
    float64 reference's; `near_ties` are rows too close to call in the model's own precision, and
    `wrong_labels` are the disagreements that neither a near tie explains nor what rounding on the
    wire made of the examples. `error` is None when every
    row was answered. `messages` is how many carried the batch to a server. Warm-up runs are never
    made into samples.
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
