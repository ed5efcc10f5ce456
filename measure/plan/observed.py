"""Data types for a calibration: the observed loads of a server."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from client.errors import UsageError
from measure.engine.histogram import Histogram
from measure.load.summary import LoadPoint
from measure.load.summary import latency as latency_of
from server.batching.policy import Limits

# Share by which the p99s of a load's passes may differ.
PASSES_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Trace:
    """When the Poisson requests of one pass of an open loop were due, drawn from `seed`.

    They began with `warm_up_ns` that did not count, and ended `elapsed_ns` later.
    """

    seed: int
    warm_up_ns: int
    elapsed_ns: int


@dataclass(frozen=True, slots=True)
class Observation:
    """One load: its settings, and times in nanoseconds, None where samples are too few.

    `queue_ns` to `compute_ns` are means over requests, and so is `batch_rows`, the rows of the
    batch that a request ran in. `errors` counts failed requests. `doubts` lists the checks that the
    point failed. `traces` give when the requests of an open loop were due, pass by pass.
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
    traces: tuple[Trace, ...] = ()

    @classmethod
    def of(cls, passes: Sequence[LoadPoint], traces: Sequence[Trace] = ()) -> Self:
        """Merge the passes of one load; UsageError for no answers, or without timings."""
        for point in passes:
            if point.latency_ns.mean is None:
                raise UsageError(f"no request was answered: {point.errors}")
            if point.split is None or point.split.told_by != "timings":
                raise UsageError(
                    "the server reports no timings with its answers; a plan needs them"
                )
        samples = [point.latency_ns.samples for point in passes]

        def mean(values: Sequence[float | None]) -> float:
            return float(np.average([value or 0.0 for value in values], weights=samples))

        histogram = Histogram.decode(passes[0].latency_histogram)
        for point in passes[1:]:
            histogram.add(Histogram.decode(point.latency_histogram))
        mean_ns = mean([point.latency_ns.mean for point in passes])
        latency = latency_of(histogram, mean_ns)
        splits = [point.split for point in passes if point.split is not None]
        asked = passes[0].asked
        elapsed_ns = sum(point.elapsed_ns for point in passes)
        answered = sum(point.requests_per_s * point.elapsed_ns for point in passes)
        return cls(
            rows=asked.rows,
            concurrency=asked.concurrency,
            rate_per_s=asked.rate_per_s,
            requests_per_s=answered / elapsed_ns,
            samples=latency.samples,
            errors=sum(sum(point.errors.values()) for point in passes),
            mean_ns=mean_ns,
            p50_ns=latency.p50,
            p90_ns=latency.p90,
            p99_ns=latency.p99,
            queue_ns=mean([split.queue_ns for split in splits]),
            assemble_ns=mean([split.assemble_ns for split in splits]),
            compute_ns=mean([split.compute_ns for split in splits]),
            batch_rows=mean([split.batch_rows for split in splits]),
            doubts=(*_failed_checks(passes), *_unlike(passes)),
            traces=tuple(traces),
        )


def _failed_checks(passes: Sequence[LoadPoint]) -> Iterator[str]:
    for point in passes:
        for check in point.checks:
            if check.passed is False:
                yield f"{check.name}: {check.text}"


def _unlike(passes: Sequence[LoadPoint]) -> Iterator[str]:
    """Report where passes of one load differ too much for any prediction to fit all of them."""
    p99s_ns = [one.latency_ns.p99 for one in passes if one.latency_ns.p99 is not None]
    if len(p99s_ns) > 1 and max(p99s_ns) > (1 + PASSES_SHARE) * min(p99s_ns):
        each = " and ".join(f"{p99_ns / 1e6:.3g}" for p99_ns in p99s_ns)
        yield f"passes: the same load had a p99 of {each} ms"


@dataclass(frozen=True, slots=True)
class Calibration:
    """A server's measured loads and batching limits: the input of a plan.

    `sizes` are single requests of several numbers of rows; `busy` is a closed loop that shows the
    server's capacity. Costs are fitted to the open loops of `fitted`; those of `held_out` validate
    the predictions. `row_bytes` is the size of a row on the wire, as `dtype`.
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
