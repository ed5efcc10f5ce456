"""Turn samples into the reported numbers."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from measure.core.confidence import fewest_samples
from measure.core.stages import Sample, longer
from measure.core.verdict import Finding
from measure.servers.part import ReplicaPart
from measure.servers.server_use import ServerUse

FEWEST_SAMPLES = 3
MOST_STEAL = 0.02
MOST_ERROR_KINDS = 5


@dataclass(frozen=True, slots=True)
class Spread:
    """Percentiles of a time in nanoseconds over `samples` samples; None if there are none."""

    min: int | None
    p50: int | None
    p90: int | None
    max: int | None
    samples: int

    def __post_init__(self) -> None:
        if self.samples and None in (self.min, self.p50, self.p90, self.max):
            raise ValueError(f"got null for a time of {self.samples} samples, expected a number")

    @property
    def known_p90(self) -> int | None:
        """The p90; None if there are too few samples."""
        return None if self.samples < fewest_samples(90) else self.p90


@dataclass(frozen=True, slots=True)
class StageSplit:
    """Mean nanoseconds per request in each stage of the server.

    `send_ns` is the client's: from the call until the kernel had the request's last byte, encoding
    included; `answer_receive_ns` from the answer's first byte until it was decoded. The server
    receives (`server_receive_ns`) while the client sends, so of the two the longer one counts in
    `other_ns`: the mean latency that no stage accounts for (network, encoding and sending the
    answer). It is None where stages overlap with the transfer, as in a stream, so that the
    difference would be meaningless. `batch_rows` is the mean number of rows the server ran
    together. Stages with a default are None where they are unknown, and in old records.
    """

    decode_ns: float
    queue_ns: float
    assemble_ns: float
    compute_ns: float
    other_ns: float | None
    batch_rows: float
    execution_provider: str
    send_ns: float | None = None
    server_receive_ns: float | None = None
    handover_ns: float | None = None
    answer_receive_ns: float | None = None


@dataclass(frozen=True, slots=True)
class Point:
    """One mode's results at one batch size, in the order of the record.

    Percentiles cover the samples without error; `throughput_per_s` is the rows of those samples
    over `elapsed_ns`, the time of all samples. `agreement` is the share of rows whose label equals
    the float64 reference's, None without rows. `error_kinds` counts the most frequent error texts,
    so its sum may be below `errors`. `messages` is the largest number of messages that one batch
    took. `latencies_ns` are those of the samples without error, in the order measured; old records
    lack them. `replicas` has the part of each of several servers, and `server` what all of them
    report together; empty and None for a single one.
    """

    mode: str
    batch_size: int
    latency_ns: Spread
    first_prediction_ns: Spread
    throughput_per_s: float
    wrong_labels: int
    near_ties: int
    errors: int
    rows: int
    elapsed_ns: int
    agreement: float | None
    error_kinds: dict[str, int]
    stages: StageSplit | None
    server_peak_rss_bytes: int | None
    messages: int = 0
    latencies_ns: tuple[int, ...] = ()
    replicas: tuple[ReplicaPart, ...] = ()
    server: ServerUse | None = None


def percentile(values: Iterable[int], p: float) -> int:
    """Nearest-rank percentile: the smallest value that at least `p` percent do not exceed.

    `p` lies in 0..100 and the answer is always one of `values`, in their unit. Raises ValueError
    when there are no values or `p` lies outside.
    """
    ordered = sorted(values)
    if not ordered:
        raise ValueError("a percentile needs at least one value")
    if not 0 <= p <= 100:
        raise ValueError(f"percentile {p} is outside 0..100")
    # Exact arithmetic: in floating point a whole rank can come out slightly too high.
    rank = math.ceil(Fraction(str(p)) * len(ordered) / 100)
    return ordered[max(rank, 1) - 1]


def spread(values: Sequence[int]) -> Spread:
    """Percentiles of times in nanoseconds; all None if there are no values."""
    if not values:
        return Spread(None, None, None, None, 0)
    return Spread(
        min(values), percentile(values, 50), percentile(values, 90), max(values), len(values)
    )


def summarise(
    mode: str,
    batch_size: int,
    samples: Sequence[Sample],
    server_peak_rss_bytes: int | None = None,
) -> Point:
    """Summarise one mode's samples at one batch size, which were sent one after another."""
    answered = [s for s in samples if s.error is None]
    rows = sum(s.rows for s in answered)
    elapsed_ns = sum(s.latency_ns for s in samples)
    failures = Counter(s.error for s in samples if s.error is not None)
    return Point(
        mode=mode,
        batch_size=batch_size,
        latency_ns=spread([s.latency_ns for s in answered]),
        first_prediction_ns=spread([s.first_prediction_ns for s in answered]),
        throughput_per_s=rows * 1e9 / elapsed_ns if elapsed_ns > 0 else 0.0,
        rows=rows,
        elapsed_ns=elapsed_ns,
        # Wrong labels always count, even if an error followed.
        wrong_labels=sum(s.wrong_labels for s in samples),
        near_ties=sum(s.near_ties for s in answered),
        agreement=1 - sum(s.disagreements for s in answered) / rows if rows else None,
        errors=failures.total(),
        error_kinds=dict(failures.most_common(MOST_ERROR_KINDS)),
        stages=_split(mode, answered),
        server_peak_rss_bytes=server_peak_rss_bytes,
        messages=max((s.messages for s in samples), default=0),
        latencies_ns=tuple(s.latency_ns for s in answered),
    )


def _split(mode: str, answered: Sequence[Sample]) -> StageSplit | None:
    staged = [(s, s.stages) for s in answered if s.stages is not None]
    if not staged:
        return None

    def mean(values: Iterable[float]) -> float:
        return sum(values) / len(staged)

    def mean_if_known(values: Iterable[int | None]) -> float | None:
        known = [value for value in values if value is not None]
        return mean(known) if len(known) == len(staged) else None

    whole = mode == "unary" and all(s.messages <= 1 for s in answered)
    split = StageSplit(
        decode_ns=mean(stages.decode_ns for _, stages in staged),
        queue_ns=mean(stages.queue_ns for _, stages in staged),
        assemble_ns=mean(stages.assemble_ns for _, stages in staged),
        compute_ns=mean(stages.compute_ns for _, stages in staged),
        other_ns=None,
        batch_rows=mean(stages.batch_rows for _, stages in staged),
        execution_provider=", ".join(sorted({s.execution_provider for _, s in staged})),
        send_ns=mean_if_known(sample.send_ns for sample, _ in staged),
        server_receive_ns=mean_if_known(stages.receive_ns for _, stages in staged),
        handover_ns=mean_if_known(stages.handover_ns for _, stages in staged),
        answer_receive_ns=mean_if_known(sample.receive_ns for sample, _ in staged),
    )
    if not whole:
        return split
    other_ns = mean(sample.latency_ns for sample, _ in staged) - _accounted_ns(split)
    return replace(split, other_ns=max(other_ns, 0.0))


def _accounted_ns(split: StageSplit) -> float:
    inside_ns = split.decode_ns + split.queue_ns + split.assemble_ns + split.compute_ns
    inside_ns += split.handover_ns or 0.0
    there_ns = longer(split.send_ns, split.server_receive_ns)
    return there_ns + inside_ns + (split.answer_receive_ns or 0.0)


def warnings(points: Sequence[Point], environment: Mapping[str, Any]) -> list[Finding]:
    """The caveats of `points`: failures first, then weaknesses.

    `environment` is the result of `measure.core.environment.describe`; missing keys are not judged.
    """
    return [
        *_failures(points),
        *_few_samples(points),
        *_split_requests(points),
        *disturbances(environment),
    ]


def _failures(points: Sequence[Point]) -> Iterable[Finding]:
    if not points:
        yield Finding("fail", "nothing was measured")
    for point in points:
        where = f"{point.mode}, batch size {point.batch_size:,}"
        if point.wrong_labels:
            yield Finding("fail", f"{where}: wrong labels: {point.wrong_labels:,}")
        if point.errors:
            total = point.latency_ns.samples + point.errors
            kinds = "; ".join(f"{text} ({count:,})" for text, count in point.error_kinds.items())
            yield Finding("fail", f"{where}: {point.errors:,} of {total:,} samples failed: {kinds}")


def _few_samples(points: Sequence[Point]) -> Iterable[Finding]:
    few = defaultdict(list)
    for point in points:
        if point.latency_ns.samples < FEWEST_SAMPLES:
            few[point.mode].append(point)
    for mode, weak in few.items():
        sizes = ", ".join(f"{point.batch_size}" for point in weak)
        fewest = min(point.latency_ns.samples for point in weak)
        yield Finding(
            "warn",
            f"{mode}: fewer than {FEWEST_SAMPLES} samples (as few as {fewest}) "
            f"at batch size {sizes}; percentiles are weak",
        )


def _split_requests(points: Sequence[Point]) -> Iterable[Finding]:
    for point in points:
        if point.mode == "unary" and point.messages > 1:
            yield Finding(
                "warn",
                f"unary, batch size {point.batch_size:,}: too large for one message, "
                f"so it was streamed in {point.messages:,}",
            )


def disturbances(environment: Mapping[str, Any]) -> Iterable[Finding]:
    """Conditions of the machine that may have disturbed a measurement."""
    steal = environment.get("steal_fraction")
    if steal is not None and steal > MOST_STEAL:
        yield Finding("warn", f"the hypervisor took {steal:.1%} of the processor time (steal)")
    load, cores = environment.get("load_average_start"), environment.get("cores")
    if load and cores and load[0] > cores:
        yield Finding(
            "warn", f"the machine was busy at the start: load average {load[0]:.2f}, cores {cores}"
        )
