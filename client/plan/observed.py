"""Hold what a calibration saw of a server under load."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from client.errors import UsageError
from client.load.summary import LoadPoint
from scheduling.batching import Limits


@dataclass(frozen=True, slots=True)
class Observation:
    """One load: what was asked, and times in nanoseconds, None where samples are too few.

    `queue_ns` to `compute_ns` are means over requests, as `batch_rows` is of the batches that they
    ran in. `errors` counts requests that failed. `doubts` say in which respects the point cannot
    be believed.
    """

    rows: int
    concurrency: int | None
    rate_per_s: float | None
    requests_per_s: float
    samples: int
    errors: int
    mean_ns: float
    p50_ns: int | None
    p90_ns: int | None
    p99_ns: int | None
    queue_ns: float
    assemble_ns: float
    compute_ns: float
    batch_rows: float
    doubts: tuple[str, ...]

    @classmethod
    def of(cls, point: LoadPoint) -> Self:
        """Read a point; UsageError when it has no answers, or the server tells no timings."""
        latency, split = point.latency_ns, point.split
        if latency.mean is None:
            raise UsageError(f"no request was answered: {point.errors}")
        if split is None or split.told_by != "timings":
            raise UsageError("the server tells no timings with its answers; a plan is made of them")
        return cls(
            rows=point.asked.rows,
            concurrency=point.asked.concurrency,
            rate_per_s=point.asked.rate_per_s,
            requests_per_s=point.requests_per_s,
            samples=latency.samples,
            errors=sum(point.errors.values()),
            mean_ns=latency.mean,
            p50_ns=latency.p50,
            p90_ns=latency.p90,
            p99_ns=latency.p99,
            queue_ns=split.queue_ns or 0.0,
            assemble_ns=split.assemble_ns or 0.0,
            compute_ns=split.compute_ns or 0.0,
            batch_rows=split.batch_rows or 0.0,
            doubts=tuple(f"{c.name}: {c.text}" for c in point.checks if c.passed is False),
        )

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read it from its fields; KeyError or TypeError when it is something else."""
        return cls(**{**content, "doubts": tuple(content["doubts"])})


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a server did, and how it batches: all that a plan is made of.

    `sizes` are single requests of several numbers of rows; `busy` is a closed loop that says what
    the server can do. Costs are fitted to the open loops of `fitted`; those of `held_out` say how
    well that predicts. `row_bytes` is what a row takes on its way, as `dtype`.
    """

    model: str
    rows: int
    row_bytes: int
    dtype: str
    limits: Limits
    sizes: tuple[Observation, ...]
    busy: Observation
    fitted: tuple[Observation, ...]
    held_out: tuple[Observation, ...]

    def to_json(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read what `to_json` gave; UsageError when it is something else."""
        try:
            return cls(
                model=content["model"],
                rows=content["rows"],
                row_bytes=content["row_bytes"],
                dtype=content["dtype"],
                limits=Limits(**content["limits"]),
                sizes=_observations(content["sizes"]),
                busy=Observation.from_json(content["busy"]),
                fitted=_observations(content["fitted"]),
                held_out=_observations(content["held_out"]),
            )
        except (KeyError, TypeError) as error:
            raise UsageError(f"this is no calibration: {type(error).__name__} {error}") from None


def _observations(contents: Sequence[Mapping[str, Any]]) -> tuple[Observation, ...]:
    return tuple(map(Observation.from_json, contents))
