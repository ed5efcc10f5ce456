"""Find the highest rate of requests at which a server keeps its p99 below a bound."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from measure.core.confidence import fewest_samples
from measure.core.verdict import Passed
from measure.engine.bisection import Found, highest_rate
from measure.engine.windows import STABLE_WINDOWS
from measure.load.runs import loading
from measure.load.settings import Progress, Report, Settings, open_loop
from measure.load.summary import LoadPoint
from measure.load.target import Target

# Below this share of the bound, unstable windows do not matter.
_UNSTABLE_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Trial:
    """A point that was tried, and whether it met the bound; None: inconclusive."""

    point: LoadPoint
    met: Passed
    because: str


def slo(
    settings: Settings,
    target: Target,
    p99_ns: int,
    start: float,
    precision: float,
    most: float,
    report: Report,
    trials: list[Trial],
) -> Found:
    """Search rates in an open loop, with the first of the settings' modes; return the result.

    Each trial is appended to `trials` when it ends.
    """
    (mode, *_) = settings.modes
    settings = for_p99(settings)

    def keep(step: Progress) -> None:
        if step.point is not None:
            trials.append(judge(step.point, p99_ns))
        report(step)

    with loading(settings, target, mode) as one_mode:

        def meets(rate_per_s: float) -> bool | None:
            one_mode.measure(open_loop(settings, mode, rate_per_s), keep)
            return trials[-1].met

        return highest_rate(meets, start, precision, most)


def found_so_far(trials: Sequence[Trial]) -> Found:
    """The result of an interrupted search."""
    met = [trial.point.asked.rate_per_s for trial in trials if trial.met]
    missed = [trial.point.asked.rate_per_s for trial in trials if trial.met is False]
    return Found(
        max((rate for rate in met if rate is not None), default=None),
        min((rate for rate in missed if rate is not None), default=None),
    )


def for_p99(settings: Settings) -> Settings:
    """Settings whose windows hold enough samples for a p99 at any rate."""
    requests = max(settings.windows.requests, -(-fewest_samples(99) // STABLE_WINDOWS))
    return replace(settings, windows=replace(settings.windows, requests=requests))


def judge(point: LoadPoint, p99_ns: int) -> Trial:
    """Decide whether a point met the bound.

    It did if the p99 is below, and no check failed except send lag and steal, or, if the p99 is
    below half of the bound, stability. It did not if requests failed, or if more were due than
    answered, or if the p99 is above even without the client's send lag (its p99).
    """
    met, because = _verdict(point, p99_ns)
    return Trial(point, met, because)


def _verdict(point: LoadPoint, p99_ns: int) -> tuple[Passed, str]:
    failed = {
        check.name: check.text
        for check in point.checks
        # If stability is inconclusive, the load may have been unstable.
        if check.passed is False or (check.name == "stable" and check.passed is None)
    }
    p99, samples = point.latency_ns.p99, point.latency_ns.samples
    late_ns = point.send_lag_ns.p99 or point.send_lag_ns.max or 0
    verdict: tuple[Passed, str]
    if "errors" in failed:
        verdict = False, failed["errors"]
    elif p99 is None:
        verdict = None, f"only {samples} samples"
    elif p99 <= p99_ns and set(failed) <= _harmless(p99, p99_ns):
        verdict = True, "p99 is within the bound"
    elif "steal" in failed:
        verdict = None, f"steal: {failed['steal']}"
    elif p99 - late_ns > p99_ns:
        verdict = False, "p99 is over the bound"
    elif p99 > p99_ns:
        verdict = None, f"the client sent late: p99 of send lag {late_ns / 1e6:.3g} ms"
    elif "rate" in failed and "send lag" not in failed:
        verdict = False, failed["rate"]
    else:
        name, text = next(iter(failed.items()))
        verdict = None, f"{name}: {text}"
    return verdict


def _harmless(p99_ns: int, bound_ns: int) -> set[str]:
    """Checks that may fail while the p99 is within the bound."""
    # These only add to the latency, so the bound was met despite them.
    harmless = {"send lag", "steal"}
    return harmless | {"stable"} if p99_ns <= _UNSTABLE_SHARE * bound_ns else harmless
