import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from measure.slo.elimination import race


def run(limits, *, start=100.0, factor=1.5, most=10_000.0, most_trials=1000):
    """Race candidates that meet rates up to a limit of each; what was found, what was tried."""
    tried = []

    def meets(index, rate):
        tried.append((index, rate))
        return rate <= limits[index]

    return race(len(limits), meets, start, factor, most, most_trials), tried


def test_who_meets_the_highest_rate_is_the_best():
    found, tried = run([100, 230, 50, 150])
    assert found.met == (100.0, 225.0, None, 150.0)
    assert (found.best, found.ended) == ((1,), True)
    # Who is out is tried no more; who misses, twice.
    assert [rate for index, rate in tried if index == 2] == [100.0, 100.0]
    assert [rate for index, rate in tried if index == 1] == [100.0, 150.0, 225.0, 337.5, 337.5]


def test_every_other_rate_is_tried_backwards():
    _, tried = run([500, 500], most=225)
    assert [index for index, _ in tried] == [0, 1, 1, 0, 0, 1]


def test_nobody_may_be_the_best_and_all_may():
    assert run([1, 2])[0].best == ()
    assert run([500, 500], most=200)[0].best == (0, 1)


@pytest.mark.parametrize("bad_luck", [False, None])
def test_one_bad_trial_is_no_verdict(bad_luck):
    answers = iter([bad_luck, True, True, False, False])
    found = race(1, lambda index, rate: next(answers), 100.0, 2.0, 1000.0, 100)
    assert found.met == (200.0,)


@settings(deadline=None)
@given(
    st.lists(st.floats(50, 1000), min_size=1, max_size=8),
    st.integers(0, 60),
)
def test_a_race_keeps_to_its_trials_and_finds_nothing_untrue(limits, most_trials):
    found, tried = run(limits, most_trials=most_trials)
    assert len(tried) <= most_trials
    for limit, met in zip(limits, found.met, strict=True):
        assert met is None or met <= limit
    if found.ended and found.best:
        highest = max(limits)
        assert all(found.met[index] * 1.5 > highest for index in found.best)
        assert limits.index(highest) in found.best
