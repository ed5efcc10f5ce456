"""Turn the slices of a load into the numbers that are reported, and into what speaks for them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from client.load.histogram import Histogram
from client.load.server_statistics import ServerStatistics
from client.load.slice import Slice
from client.load.split import LoadSplit, split
from client.summary import MOST_STEAL

PERCENTILES = (50, 90, 95, 99, 99.9)
STABLE_WINDOWS = 3
STABLE_SHARE = 0.10
LITTLE_SHARE = 0.05
RATE_SHARE = 0.05
# Lateness of sends that is tolerated: this much, or this share of the same percentile's latency.
SEND_LAG_NS, SEND_LAG_SHARE = 1_000_000, 0.10
LEFT_BEHIND_TIMES = 2

LoopKind = Literal["closed", "open"]


@dataclass(frozen=True, slots=True)
class Latency:
    """Times in nanoseconds of `samples` requests; None where those are too few to tell."""

    mean: float | None
    p50: int | None
    p90: int | None
    p95: int | None
    p99: int | None
    p99_9: int | None
    max: int | None
    samples: int


@dataclass(frozen=True, slots=True)
class Check:
    """Whether a point can be believed in one respect; None: it cannot be told."""

    name: str
    passed: bool | None
    text: str


@dataclass(frozen=True, slots=True)
class Window:
    """What one window saw: requests answered and due per second, mean latency, errors."""

    rate_per_s: float
    mean_latency_ns: float | None
    errors: int
    due_per_s: float


@dataclass(frozen=True, slots=True)
class Asked:
    """What a point was to be: so many requests under way, or so many a second."""

    loop: LoopKind
    mode: str
    rows: int
    processes: int
    concurrency: int | None = None
    rate_per_s: float | None = None
    arrivals: str | None = None

    @property
    def level(self) -> float:
        """What is varied: the concurrency, or the rate."""
        return float(self.concurrency or 0) if self.rate_per_s is None else self.rate_per_s


@dataclass(frozen=True, slots=True)
class LoadPoint:
    """What one load gave, warm-up apart.

    `latency_ns` counts from when a request was due (open loop) or sent (closed loop). Rates and
    latencies are of the same requests: those answered without error between the first and the
    last window. `errors` are of all, those that were under way at the end included.
    `wrong_labels` is None where the right labels are not known. `concurrency` is the mean number
    of requests under way. `split` is None when nothing was answered. The histograms are in HDR's
    encoded form. `sender_nice` is the priority of the processes that sent, 0 the usual one.
    """

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

    @property
    def valid(self) -> bool:
        """Whether no check failed."""
        return all(check.passed is not False for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """As JSON takes it, with the verdict."""
        return {**asdict(self), "valid": self.valid}


def window_of(found: Slice) -> Window:
    """Summary of a window."""
    due_per_s = found.due * 1e9 / found.elapsed_ns
    return Window(found.rate_per_s, found.mean_latency_ns, found.errors.total(), due_per_s)


def is_stable(windows: Sequence[Window], loop: LoopKind) -> bool:
    """Whether rate and mean latency of the last three windows are within a tenth of their means.

    In an open loop the rate is the share of what was due that was answered: chance makes more
    due in one window than in the next, which says nothing of the server.
    """
    last = windows[-STABLE_WINDOWS:]
    if len(last) < STABLE_WINDOWS:
        return False
    rates = [window.rate_per_s for window in last]
    if loop == "open":
        rates = [rate / max(w.due_per_s, 1e-9) for rate, w in zip(rates, last, strict=True)]
    latencies = [w.mean_latency_ns for w in last if w.mean_latency_ns is not None]
    return len(latencies) == len(last) and _alike(rates) and _alike(latencies)


def _alike(values: Sequence[float]) -> bool:
    mean = sum(values) / len(values)
    return all(abs(value - mean) <= STABLE_SHARE * mean for value in values)


def latency(histogram: Histogram, mean_ns: float | None) -> Latency:
    """Percentiles of a histogram, those that its samples support."""
    values = {f"p{p}".replace(".", "_"): histogram.percentile(p) for p in PERCENTILES}
    return Latency(mean=mean_ns, **values, max=histogram.max_ns, samples=histogram.samples)


def summarise(
    asked: Asked,
    windows: Sequence[Slice],
    last: Slice,
    *,
    labels_known: bool,
    steal: float | None,
    statistics: ServerStatistics | None = None,
    sender_nice: int = 0,
) -> LoadPoint:
    """Summary of a load: its windows without the warm-up, and what ended after them.

    `steal` is the share of processor time that the hypervisor took meanwhile, `statistics` what
    the server says that it did.
    """
    whole = Slice(windows[0].start_ns, windows[0].end_ns)
    for window in windows:
        whole.add(window)
    summaries = tuple(window_of(window) for window in windows)
    concurrency = whole.in_flight_area_ns / whole.elapsed_ns
    errors = whole.errors + last.errors
    wrong = whole.wrong_labels + last.wrong_labels if labels_known else None
    checks = (
        _errors(errors.total(), wrong),
        *_little(asked, whole, concurrency),
        *_rate(asked, whole),
        *_send_lag(asked, whole),
        _stability(asked, summaries),
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
    )


def _errors(errors: int, wrong_labels: int | None) -> Check:
    text = f"{errors:,} failed requests"
    if wrong_labels:
        text += f", {wrong_labels:,} wrong labels"
    return Check("errors", not errors and not wrong_labels, text)


def _little(asked: Asked, whole: Slice, concurrency: float) -> Sequence[Check]:
    """Rate times latency must be the concurrency: what was asked for, or what was seen."""
    mean_ns = whole.mean_latency_ns
    if mean_ns is None:
        return [Check("little", False, "nothing was answered")]
    told = whole.rate_per_s * mean_ns / 1e9
    wanted = float(asked.concurrency) if asked.concurrency is not None else concurrency
    share = told / wanted - 1 if wanted > 0 else float("inf")
    text = f"rate x latency = {told:.3g}, concurrency {wanted:.3g} ({share:+.1%})"
    return [Check("little", abs(share) <= LITTLE_SHARE, text)]


def _rate(asked: Asked, whole: Slice) -> Sequence[Check]:
    if asked.rate_per_s is None:
        return []
    # Of a Poisson process, not what it has on average, but what was due.
    kept_up = whole.answered >= (1 - RATE_SHARE) * whole.due - 1
    return [Check("rate", kept_up, f"{whole.answered:,} answered of {whole.due:,} due")]


def _send_lag(asked: Asked, whole: Slice) -> Sequence[Check]:
    """Whether the client kept its own schedule, so that it is not what is measured.

    In a closed loop that lateness is part of no latency; Little's law tells where it matters.
    """
    if asked.rate_per_s is None:
        return []
    for p in (99, 95, 90, 50):
        lag_ns, latency_ns = whole.send_lag.percentile(p), whole.latency.percentile(p)
        if lag_ns is not None and latency_ns is not None:
            most_ns = max(SEND_LAG_NS, SEND_LAG_SHARE * latency_ns)
            text = f"p{p} of lateness of sends {lag_ns / 1e6:.3g} ms, at most {most_ns / 1e6:.3g}"
            return [Check("send lag", lag_ns <= most_ns, text)]
    return [Check("send lag", None, "too few samples")]


def _stability(asked: Asked, windows: Sequence[Window]) -> Check:
    text = f"rate and latency of {STABLE_WINDOWS} windows within {STABLE_SHARE:.0%} of their mean"
    return Check("stable", is_stable(windows, asked.loop), f"{text}; {len(windows)} windows")


def _left_behind(whole: Slice, last: Slice) -> Sequence[Check]:
    """What was under way at the end must not be what the measurement would have shown."""
    longest_ns, most_ns = last.latency.max_ns, whole.latency.max_ns
    if longest_ns is None or most_ns is None:
        return []
    text = f"after the end at most {longest_ns / 1e6:.3g} ms, before {most_ns / 1e6:.3g}"
    return [Check("left behind", longest_ns <= LEFT_BEHIND_TIMES * most_ns, text)]


def _steal(steal: float | None) -> Check:
    if steal is None:
        return Check("steal", None, "the system does not tell")
    return Check("steal", steal <= MOST_STEAL, f"{steal:.1%} of the processor time")
