"""Decide point by point whether the newer of two results is worse."""

import statistics
from dataclasses import dataclass

from measure.core.comparison import Ratio, unpaired_ratio
from measure.core.verdict import Standing
from measure.diff.side import FEWEST_RUNS, Series, Side

LEVEL = 0.05
WORSE, BETTER, SAME, UNDECIDED = "WORSE", "better", "the same", Standing.UNDECIDED


@dataclass(frozen=True, slots=True)
class Difference:
    """The comparison of one point: `cost` is new over old, above 1 where more time is taken.

    `old` and `new` are medians in the unit of `metric`; `cost` is None where there are values too
    few to compare.
    """

    label: str
    metric: str
    old: float | None
    new: float | None
    cost: Ratio | None
    verdict: str


def incomparable(old: Side, new: Side) -> str | None:
    """Why two results cannot be compared; None when they can."""
    if old.kind != new.kind:
        return f"a {old.kind} and a {new.kind} are different kinds of result"
    unlike = [
        f"{name} {value} and {new.same[name]}"
        for name, value in old.same.items()
        if value != new.same[name]
    ]
    if unlike:
        return f"not of the same thing: {', '.join(unlike)}"
    if not _both(old, new):
        return "no point is in both"
    return None


def only_in_one(old: Side, new: Side) -> list[str]:
    """Labels of the points that only one of the results has."""
    sides = [{series.label for series in one.series} for one in (old, new)]
    return [
        *(f"only in the old: {label}" for label in sorted(sides[0] - sides[1])),
        *(f"only in the new: {label}" for label in sorted(sides[1] - sides[0])),
    ]


def single_runs(old: Side, new: Side) -> str | None:
    """A warning if a side is a single run; None if both have several."""
    alone = [name for name, one in (("old", old), ("new", new)) if one.runs == 1]
    if not alone:
        return None
    text = (
        "both sides are single runs"
        if len(alone) == 2
        else f"the {alone[0]} side is a single run, the other {max(old.runs, new.runs)} runs"
    )
    starts = min(one.starts for one in (old, new) if one.runs == 1)
    if starts >= FEWEST_RUNS:
        return (
            f"{text}, of {starts} starts of each server: their rounds are taken together, so the "
            "intervals may be too narrow for what differs from start to start"
        )
    return (
        f"{text}: no interval holds what differs from one start to the next, so a "
        f"difference may be of these runs only; give folders of at least {FEWEST_RUNS} runs each, "
        "measured in turn"
    )


def differences(old: Side, new: Side, tolerance: float) -> list[Difference]:
    """Compare every point of both; a difference up to the share `tolerance` is none.

    The intervals hold for all points at once with 95% (Bonferroni). A point with new failures is
    worse, whatever its time.
    """
    pairs = _both(old, new)
    confidence = 1 - LEVEL / len(pairs)
    found = [_judge(before, after, tolerance, confidence) for before, after in pairs]
    for label, count in new.failures.items():
        earlier = old.failures.get(label)
        # One side may have more runs than the other.
        if earlier is not None and count * old.runs > earlier * new.runs:
            what = "failed requests and wrong labels"
            found.append(Difference(label, what, earlier, count, None, WORSE))
    return found


def _both(old: Side, new: Side) -> list[tuple[Series, Series]]:
    later = {(series.label, series.metric): series for series in new.series}
    return [
        (series, later[series.label, series.metric])
        for series in old.series
        if (series.label, series.metric) in later
    ]


def _judge(old: Series, new: Series, tolerance: float, confidence: float) -> Difference:
    cost = _cost(old, new, confidence)
    return Difference(
        label=old.label,
        metric=old.metric,
        old=statistics.median(old.values) if old.values else None,
        new=statistics.median(new.values) if new.values else None,
        cost=cost,
        verdict=UNDECIDED if cost is None else _verdict(cost, tolerance),
    )


def _cost(old: Series, new: Series, confidence: float) -> Ratio | None:
    if old.bound is not None and new.bound is not None:
        # Each rate is known to lie between two others.
        return Ratio(
            median=old.bound[0] / new.bound[0],
            low=old.bound[0] / new.bound[1],
            high=old.bound[1] / new.bound[0],
            pairs=1,
        )
    if len(old.values) < old.fewest or len(new.values) < new.fewest:
        return None
    if old.higher_is_better:
        return unpaired_ratio(old.values, new.values, confidence=confidence)
    return unpaired_ratio(new.values, old.values, confidence=confidence)


def _verdict(cost: Ratio, tolerance: float) -> str:
    most = 1 + tolerance
    if cost.low > most:
        return WORSE
    if cost.high < 1 / most:
        return BETTER
    return SAME if 1 / most <= cost.low and cost.high <= most else UNDECIDED
