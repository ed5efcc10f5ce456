import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from measure.core.confidence import fewest_samples
from measure.engine.histogram import Histogram
from measure.sweep.summary import percentile

HOUR_NS = 3600 * 10**9


def histogram(values):
    counted = Histogram()
    for value in values:
        counted.record(value)
    return counted


@pytest.mark.parametrize(("p", "samples"), [(50, 7), (90, 44), (95, 90), (99, 459), (99.9, 4603)])
def test_a_percentile_needs_so_many_samples(p, samples):
    assert fewest_samples(p) == samples
    # The largest of n exceeds the true percentile with probability 1 - (p/100)^n.
    assert 1 - (p / 100) ** samples >= 0.99 > 1 - (p / 100) ** (samples - 1)
    assert histogram([10**6] * (samples - 1)).percentile(p) is None
    assert histogram([10**6] * samples).percentile(p) is not None


@settings(deadline=None)
@given(st.lists(st.integers(1_000, HOUR_NS), min_size=44, max_size=200))
def test_percentiles_are_the_nearest_rank_to_a_thousandth(values):
    counted = histogram(values)
    for p in (50, 90):
        assert counted.percentile(p) == pytest.approx(percentile(values, p), rel=0.001)
    assert counted.max_ns == pytest.approx(max(values), rel=0.001)
    assert counted.samples == len(values)


@settings(deadline=None)
@given(st.lists(st.integers(1_000, HOUR_NS)), st.lists(st.integers(1_000, HOUR_NS), min_size=44))
def test_histograms_of_processes_add_up(some, others):
    sum_of_both = Histogram.decode(histogram(some).encode())
    sum_of_both.add(Histogram.decode(histogram(others).encode()))
    whole = histogram(some + others)
    assert sum_of_both.samples == whole.samples
    assert sum_of_both.percentile(90) == pytest.approx(whole.percentile(90), rel=0.001)


def test_times_beyond_the_ends_are_not_lost():
    counted = histogram([-5, 0, 2 * HOUR_NS])
    assert counted.samples == 3
    assert counted.max_ns == pytest.approx(HOUR_NS, rel=0.001)


def test_nothing_has_no_longest():
    assert Histogram().max_ns is None
    assert Histogram.decode(Histogram().encode()).samples == 0


@pytest.mark.parametrize("text", ["", "x", "HISTFAAA", "AAAA"])
def test_what_is_no_histogram_is_refused(text):
    with pytest.raises(ValueError, match="not an HDR histogram"):
        Histogram.decode(text)


@settings(deadline=None)
@given(
    st.lists(st.integers(1_000, HOUR_NS), min_size=44, max_size=200),
    st.integers(1_000, HOUR_NS),
)
def test_a_percentile_is_within_a_bound_if_that_share_of_the_times_is(values, bound_ns):
    counted = histogram(values)
    for p in (50, 90):
        within = counted.within(bound_ns) >= p * len(values) / 100
        assert (counted.percentile(p) <= bound_ns) is within
    assert counted.within(bound_ns) <= sum(value <= bound_ns for value in values)
    assert counted.within(HOUR_NS * 2) == len(values)


def test_of_no_times_none_is_within_a_bound():
    assert histogram([]).within(HOUR_NS) == 0
