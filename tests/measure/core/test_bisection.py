import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from measure.engine.bisection import Found, highest_rate

START, PRECISION, MOST = 20.0, 0.05, 100_000.0


@settings(deadline=None)
@given(st.floats(1.0, 50_000.0))
def test_the_highest_rate_is_found_to_the_precision(limit):
    tried = []

    def meets(rate):
        tried.append(rate)
        return rate <= limit

    found = highest_rate(meets, START, PRECISION, MOST)
    assert found.untold is None
    assert found.met in tried
    assert found.missed in tried
    assert found.met <= limit < found.missed <= found.met * (1 + PRECISION)
    assert len(tried) == len(set(tried)) <= 24


def test_what_no_rate_misses_ends_at_the_most():
    found = highest_rate(lambda rate: True, START, PRECISION, 1000.0)
    assert found == Found(met=1000.0, missed=None)


def test_what_no_rate_meets_ends_far_below_the_start():
    tried = []

    def meets(rate):
        tried.append(rate)
        return False

    found = highest_rate(meets, START, PRECISION, MOST)
    assert found.met is None
    assert found.missed == min(tried)
    assert START / 64 <= found.missed < START


def test_a_start_over_the_most_is_not_tried():
    assert highest_rate(lambda rate: rate <= 10, 50.0, PRECISION, 10.0) == Found(10.0, None)


@pytest.mark.parametrize("verdict", [True, False])
def test_a_rate_that_could_not_be_told_is_tried_once_more(verdict):
    verdicts = {}

    def meets(rate):
        told = rate in verdicts
        verdicts[rate] = verdict and rate <= 100
        return verdicts[rate] if told else None

    found = highest_rate(meets, START, PRECISION, MOST)
    assert found.untold is None
    assert (found.met is not None) is verdict


def test_the_search_ends_where_it_cannot_be_told():
    found = highest_rate(lambda rate: None if rate > 50 else True, START, PRECISION, MOST)
    assert found == Found(met=40.0, missed=None, untold=80.0)
