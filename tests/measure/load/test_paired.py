import contextlib
import itertools

import pytest

from measure.engine.slice import Slice
from measure.load.paired import duel
from measure.load.summary import Asked, summarise

SECOND_NS, MS = 10**9, 10**6
OPEN = Asked("open", "unary", 1, 1, rate_per_s=500.0, arrivals="constant")


def point(latency_ms, *, answers=500, errors=0):
    one = Slice(0, SECOND_NS, due=answers)
    for _ in range(answers):
        one.answer(int(latency_ms * MS), int(latency_ms * MS), 1)
        one.send(0)
    one.errors["UNAVAILABLE"] = errors
    one.in_flight_area_ns = one.latency_sum_ns
    return summarise(OPEN, [one], Slice(SECOND_NS, SECOND_NS), labels_known=False, steal=None)


def side(name, points, events=None):
    """One that gives these points in turn, and tells when it starts and measures."""
    events = [] if events is None else events
    endless = itertools.cycle(points)

    @contextlib.contextmanager
    def started():
        events.append(f"start {name}")

        def measure():
            events.append(name)
            return next(endless)

        yield measure
        events.append(f"end {name}")

    return started


def test_each_pair_has_a_fresh_start_in_alternating_order():
    events = []
    sides = (side("a", [point(10)], events), side("b", [point(10)], events))
    found = duel(sides, pairs=2)
    assert len(found.first) == len(found.second) == 2
    assert events == [
        *("start a", "start b", "a", "b", "end b", "end a"),
        *("start b", "start a", "b", "a", "end a", "end b"),
    ]


@pytest.mark.parametrize(("pairs", "claimed"), [(10, True), (9, False)])
def test_a_difference_takes_ten_pairs(pairs, claimed):
    found = duel((side("a", [point(20)]), side("b", [point(10)])), pairs)
    assert found.differs is claimed
    assert found.could_differ is found.to_json()["could_differ"] is claimed
    assert found.comparisons["p99"].ratio.median == pytest.approx(0.5, rel=0.01)


def test_what_goes_up_and_down_is_no_difference():
    a, b = [point(ms) for ms in (10, 11, 9)], [point(ms) for ms in (9, 10, 11, 12)]
    found = duel((side("a", a), side("b", b)), pairs=12)
    assert not found.differs
    assert not found.to_json()["differs"]


def test_a_pair_with_errors_or_too_few_samples_is_no_pair():
    b = [point(10), point(10, errors=1), point(10, answers=100)]
    found = duel((side("a", [point(10)]), side("b", b)), pairs=6)
    # 100 samples tell p50, not p99.
    assert found.comparisons["p50"].ratio.pairs == 4
    assert found.comparisons["p99"].ratio.pairs == 2
    assert found.to_json()["pairs"][1]["p99_ns"][1] is None
    found = duel((side("a", [point(10)]), side("b", [point(10, errors=1)])), pairs=2)
    assert (found.comparisons, found.differs, found.could_differ) == ({}, False, False)
