"""Turn the slices of a load into reported numbers, and into checks of their validity."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from measure.core.verdict import Check
from measure.engine.histogram import Histogram
from measure.engine.slice import Slice
from measure.engine.windows import LoopKind, Window, stability, window_of
from measure.load.split import LoadSplit, split
from measure.servers.part import ReplicaPart
from measure.servers.server_use import ServerUse
from measure.servers.statistics import ServerStatistics
from measure.sweep.summary import MOST_STEAL

PERCENTILES = (50, 90, 95, 99, 99.9)
LITTLE_SHARE = 0.05
RATE_SHARE = 0.05
# Tolerated send lag: this much, or this share of the latency at the same percentile.
SEND_LAG_NS, SEND_LAG_SHARE = 1_000_000, 0.10
LEFT_BEHIND_TIMES = 2


@dataclass(frozen=True, slots=True)
class Latency:
    """Times in nanoseconds of `samples` requests; None where there are too few samples."""

    mean: float | None
    p50: int | None
    p90: int | None
    p95: int | None
    p99: int | None
    p99_9: int | None
    max: int | None
    samples: int


@dataclass(frozen=True, slots=True)
class Asked:
    """The load requested for a point: requests in flight, or requests per second.

    Of a part of a ramp it is the mean level, and `ramp` is the ramp as its option has it. A
    `schedule` is named by its file and its speed, and the rate is the mean one.
    """

    loop: LoopKind
    mode: str
    rows: int
    processes: int
    concurrency: int | None = None
    rate_per_s: float | None = None
    arrivals: str | None = None
    ramp: str | None = None
    schedule: str | None = None

    @property
    def is_steady(self) -> bool:
        """Whether the level is the same all the time."""
        return self.ramp is None and self.schedule is None

    @property
    def level(self) -> float:
        """The varied quantity: the concurrency, or the rate."""
        return float(self.concurrency or 0) if self.rate_per_s is None else self.rate_per_s


@dataclass(frozen=True, slots=True)
class Goodput:
    """Requests answered without error within `bound_ms`, per second.

    `share` is that of all requests that ended meanwhile, the failed ones too; None if none did.
    Latency counts as everywhere: in an open loop from when a request was due.
    """

    bound_ms: float
    requests_per_s: float
    share: float | None


@dataclass(frozen=True, slots=True)
class LoadPoint:
    """The result of one load, without the warm-up.

    `latency_ns` counts from when a request was due (open loop) or sent (closed loop). Rates and
    latencies cover the same requests: those answered without error between the first and the last
    window. `errors` covers all requests, including those in flight at the end. `wrong_labels` is
    None if the expected labels are unknown. `concurrency` is the mean number of requests in flight.
    `split` is None if nothing was answered. The histograms are HDR-encoded. `sender_nice` is the
    priority of the load processes; 0 is normal. `from_send_ns` counts from the send in either loop,
    as most tools (ghz) do, and `client_share` is the result of the function `client_share`; old
    records lack both. `server` is the sum over several servers, and `replicas` has the part of each
    of these; empty for a single one.
    """

    DERIVED: ClassVar = ("valid",)

    asked: Asked
    latency_ns: Latency
    send_lag_ns: Latency
    requests_per_s: float
    rows_per_s: float
    due_per_s: float
    concurrency: float
    elapsed_ns: int
    errors: dict[str, int]
    wrong_labels: int | None
    near_ties: int
    left_behind: int
    split: LoadSplit | None
    windows: tuple[Window, ...]
    checks: tuple[Check, ...]
    latency_histogram: str
    send_lag_histogram: str
    sender_nice: int = 0
    from_send_ns: Latency | None = None
    client_share: float | None = None
    goodput: Goodput | None = None
    server: ServerUse | None = None
    replicas: tuple[ReplicaPart, ...] = ()

    @property
    def valid(self) -> bool:
        """Whether no check failed."""
        return all(check.passed is not False for check in self.checks)


def latency(histogram: Histogram, mean_ns: float | None) -> Latency:
    """Those percentiles of a histogram that its samples support."""
    values = {f"p{p}".replace(".", "_"): histogram.percentile(p) for p in PERCENTILES}
    return Latency(mean=mean_ns, **values, max=histogram.max_ns, samples=histogram.samples)


def client_share(whole: Slice) -> float | None:
    """Share of the time up to an answer before the client had sent; None without answers.

    The time counts from when a request was due, or, in a closed loop, from the previous answer.
    """
    round_trip_ns = whole.mean_round_trip_ns
    if not round_trip_ns:
        return None
    return whole.mean_send_lag_ns / (whole.mean_send_lag_ns + round_trip_ns)


def goodput(whole: Slice, bound_ms: float) -> Goodput:
    """The goodput of the windows of a load together."""
    within = whole.latency.within(round(bound_ms * 1e6))
    ended = whole.answered + whole.errors.total()
    return Goodput(
        bound_ms=bound_ms,
        requests_per_s=within * 1e9 / whole.elapsed_ns,
        share=within / ended if ended else None,
    )


def summarise(
    asked: Asked,
    windows: Sequence[Slice],
    last: Slice,
    *,
    labels_known: bool,
    steal: float | None,
    statistics: ServerStatistics | None = None,
    sender_nice: int = 0,
    server: ServerUse | None = None,
    replicas: tuple[ReplicaPart, ...] = (),
    goodput_ms: float | None = None,
) -> LoadPoint:
    """Summarise a load from its windows without the warm-up, and the slice after them.

    `steal` is the share of processor time that the hypervisor took meanwhile, `statistics` the
    server's own counts, `server` what it used, `replicas` the part of each of several.
    `goodput_ms` is the bound of goodput.
    """
    whole = Slice(windows[0].start_ns, windows[0].end_ns)
    for window in windows:
        whole.add(window)
    summaries = tuple(window_of(window, whole.start_ns) for window in windows)
    concurrency = whole.in_flight_area_ns / whole.elapsed_ns
    errors = whole.errors + last.errors
    wrong = whole.wrong_labels + last.wrong_labels if labels_known else None
    checks = (
        _errors(errors.total(), wrong),
        *_little(asked, whole, concurrency),
        *_rate(asked, whole),
        *_send_lag(asked, whole),
        *_stability(asked, summaries),
        *_left_behind(whole, last),
        _steal(steal),
    )
    return LoadPoint(
        asked=asked,
        latency_ns=latency(whole.latency, whole.mean_latency_ns),
        send_lag_ns=latency(whole.send_lag, None),
        requests_per_s=whole.rate_per_s,
        rows_per_s=whole.rows * 1e9 / whole.elapsed_ns,
        due_per_s=whole.due * 1e9 / whole.elapsed_ns,
        concurrency=concurrency,
        elapsed_ns=whole.elapsed_ns,
        errors=dict(errors),
        wrong_labels=wrong,
        near_ties=whole.near_ties,
        left_behind=last.left_behind,
        split=split(whole, statistics),
        windows=summaries,
        checks=checks,
        latency_histogram=whole.latency.encode(),
        send_lag_histogram=whole.send_lag.encode(),
        sender_nice=sender_nice,
        from_send_ns=latency(whole.round_trip, whole.mean_round_trip_ns),
        client_share=client_share(whole),
        goodput=None if goodput_ms is None else goodput(whole, goodput_ms),
        server=server,
        replicas=replicas,
    )


def _errors(errors: int, wrong_labels: int | None) -> Check:
    text = f"{errors:,} failed requests"
    if wrong_labels:
        text += f", {wrong_labels:,} wrong labels"
    return Check("errors", not errors and not wrong_labels, text)


def _little(asked: Asked, whole: Slice, concurrency: float) -> Sequence[Check]:
    """Check Little's law: rate times time must equal the concurrency, so that nothing is missing.

    In an open loop, the time is the latency, and the concurrency the observed requests in flight.
    In a closed loop, it is the requested concurrency: each slot is either in flight or, from an
    answer to the next send, with the client. The latter is the send lag, which has its own check.
    """
    mean_ns = whole.mean_latency_ns
    if mean_ns is None:
        return [Check("little", False, "nothing was answered")]
    spent, wanted, most = "latency", concurrency, LITTLE_SHARE
    if asked.concurrency is not None:
        spent, wanted = "(latency + send lag)", float(asked.concurrency)
        mean_ns += whole.mean_send_lag_ns
        # The ends cut cycles off: if all slots run in step, one cycle of each.
        most = max(most, mean_ns / whole.elapsed_ns)
    in_flight = whole.rate_per_s * mean_ns / 1e9
    share = in_flight / wanted - 1 if wanted > 0 else float("inf")
    text = f"rate x {spent} = {in_flight:.3g}, concurrency {wanted:.3g} ({share:+.1%})"
    if most > LITTLE_SHARE:
        text += f", at most {most:.1%}, the share that one request takes of the time"
    return [Check("little", abs(share) <= most, text)]


def _rate(asked: Asked, whole: Slice) -> Sequence[Check]:
    if asked.rate_per_s is None:
        return []
    # For a Poisson process, the arrivals that were due, not their expectation.
    kept_up = whole.answered >= (1 - RATE_SHARE) * whole.due - 1
    return [Check("rate", kept_up, f"{whole.answered:,} answered of {whole.due:,} due")]


def _send_lag(asked: Asked, whole: Slice) -> Sequence[Check]:
    """Check that the client kept its schedule, so that it is not the bottleneck.

    In a closed loop, the time between an answer and the next send is part of no latency, but leaves
    that share of the concurrency unused: the rate is too low by at most that much.
    """
    if asked.rate_per_s is None:
        share = client_share(whole)
        if share is None:
            return [Check("send lag", None, "nothing was answered")]
        text = (
            f"{share:.1%} of a cycle is the client's, {whole.mean_send_lag_ns / 1e6:.3g} ms from "
            f"an answer to the next send, at most {SEND_LAG_SHARE:.0%}"
        )
        return [Check("send lag", share <= SEND_LAG_SHARE, text)]
    for p in (99, 95, 90, 50):
        lag_ns, latency_ns = whole.send_lag.percentile(p), whole.latency.percentile(p)
        if lag_ns is not None and latency_ns is not None:
            most_ns = max(SEND_LAG_NS, SEND_LAG_SHARE * latency_ns)
            text = f"p{p} of lateness of sends {lag_ns / 1e6:.3g} ms, at most {most_ns / 1e6:.3g}"
            return [Check("send lag", lag_ns <= most_ns, text)]
    return [Check("send lag", None, "too few samples")]


def _stability(asked: Asked, windows: Sequence[Window]) -> Sequence[Check]:
    # A level that changes on purpose makes windows that differ.
    return [Check("stable", *stability(windows, asked.loop))] if asked.is_steady else []


def _left_behind(whole: Slice, last: Slice) -> Sequence[Check]:
    """Check that the requests in flight at the end would not have changed the result."""
    longest_ns, most_ns = last.latency.max_ns, whole.latency.max_ns
    if longest_ns is None or most_ns is None:
        return []
    text = f"after the end at most {longest_ns / 1e6:.3g} ms, before {most_ns / 1e6:.3g}"
    return [Check("left behind", longest_ns <= LEFT_BEHIND_TIMES * most_ns, text)]


def _steal(steal: float | None) -> Check:
    if steal is None:
        return Check("steal", None, "the system does not report it")
    return Check("steal", steal <= MOST_STEAL, f"{steal:.1%} of the processor time")
