"""Find the highest rate of requests at which a server keeps its p99 below a bound."""

from dataclasses import dataclass, replace

from client.bisection import Found, highest_rate
from client.histogram import fewest_samples
from client.load import Report, Settings, Target, loading, measure, open_loop
from client.load_summary import STABLE_WINDOWS, LoadPoint

# The client's own lateness may be this much of the bound, or of the latency that missed it.
_CLIENT_SHARE = 0.10


@dataclass(frozen=True, slots=True)
class Trial:
    """A point that was tried, and whether it met the bound; None: that cannot be told."""

    point: LoadPoint
    met: bool | None
    because: str


def slo(
    settings: Settings,
    target: Target,
    p99_ns: int,
    start: float,
    precision: float,
    most: float,
    report: Report,
) -> tuple[Found, list[Trial]]:
    """Try rates with the first of the settings' modes, in an open loop; what was found."""
    (mode, *_) = settings.modes
    # Enough samples for a p99, whatever the rate.
    requests = max(settings.windows.requests, -(-fewest_samples(99) // STABLE_WINDOWS))
    settings = replace(settings, windows=replace(settings.windows, requests=requests))
    trials: list[Trial] = []
    with loading(settings, target, mode) as processes:

        def meets(rate_per_s: float) -> bool | None:
            asked = open_loop(settings, mode, rate_per_s)
            point = measure(processes, asked, settings, target, report)
            trials.append(judge(point, p99_ns))
            return trials[-1].met

        return highest_rate(meets, start, precision, most), trials


def judge(point: LoadPoint, p99_ns: int) -> Trial:
    """Say whether a point met the bound.

    It did if it is valid and its p99 is below. It did not if requests failed, or if more were due
    than answered, or if p99 is above, unless the client itself was late.
    """
    met, because = _verdict(point, p99_ns)
    return Trial(point, met, because)


def _verdict(point: LoadPoint, p99_ns: int) -> tuple[bool | None, str]:
    failed = {check.name: check.text for check in point.checks if check.passed is False}
    p99, lag = point.latency_ns.p99, point.send_lag_ns.p99
    verdict: tuple[bool | None, str]
    if "errors" in failed:
        verdict = False, failed["errors"]
    elif p99 is None:
        verdict = None, f"only {point.latency_ns.samples} samples"
    elif p99 <= p99_ns and set(failed) <= {"send lag"}:
        # Lateness of the client counts in the latency, so the bound was met in spite of it.
        verdict = True, "p99 is within the bound"
    elif lag is None or lag > _CLIENT_SHARE * max(p99, p99_ns):
        verdict = None, "the client was late itself"
    elif "steal" in failed:
        verdict = None, f"the processor was taken away: {failed['steal']}"
    elif p99 > p99_ns:
        verdict = False, "p99 is over the bound"
    elif "rate" in failed:
        verdict = False, failed["rate"]
    else:
        name, text = next(iter(failed.items()))
        verdict = None, f"{name}: {text}"
    return verdict
