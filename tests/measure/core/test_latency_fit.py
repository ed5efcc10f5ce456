import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from measure.core.latency_fit import Fit, crossing, crossover, estimate, fit, resampled, through

SIZES = [1, 2, 4, 8, 16, 32, 64, 128]
COST = st.floats(1, 1e9)


@settings(deadline=None)
@given(alpha=COST, beta=COST)
def test_a_line_is_found_again(alpha, beta):
    found = fit(SIZES, [alpha + beta * size for size in SIZES])
    assert found.latency_ns(1) == pytest.approx(alpha + beta, rel=1e-6)
    assert found.latency_ns(128) == pytest.approx(alpha + 128 * beta, rel=1e-6)
    assert found.rms_error <= found.worst_error < 1e-6


@settings(deadline=None)
@given(st.lists(st.floats(1, 1e6), min_size=len(SIZES), max_size=len(SIZES)))
def test_no_cost_is_negative_and_no_other_line_is_better(latencies):
    found = fit(SIZES, latencies)
    assert found.alpha_ns >= 0
    assert found.beta_ns >= 0

    def loss(alpha, beta):
        pairs = zip(SIZES, latencies, strict=True)
        return sum(((alpha + beta * size) / latency - 1) ** 2 for size, latency in pairs)

    best = loss(found.alpha_ns, found.beta_ns)
    assert best == pytest.approx(len(SIZES) * found.rms_error**2, abs=1e-9)
    for alpha in (0, found.alpha_ns * 0.99, found.alpha_ns, found.alpha_ns * 1.01 + 0.1):
        for beta in (0, found.beta_ns * 0.99, found.beta_ns, found.beta_ns * 1.01 + 0.1):
            assert best <= loss(alpha, beta) + 1e-9


def test_relative_errors_count_alike_at_every_size():
    latencies = [100 + 10 * size for size in SIZES]
    small, large = list(latencies), list(latencies)
    small[0] *= 1.1
    large[-1] *= 1.1
    assert fit(SIZES, small).rms_error == pytest.approx(fit(SIZES, large).rms_error, rel=0.5)


@pytest.mark.parametrize(
    ("sizes", "latencies"),
    [
        ([], []),
        ([4], [1]),
        ([4, 4, 8], [1, 2, 3]),
        ([1, 2], [1, 2]),
        ([1, 2, 4], [1, 2]),
        ([1, 2, 4], [0, 1, 2]),
    ],
)
def test_what_makes_no_line_is_refused(sizes, latencies):
    with pytest.raises(ValueError, match="cannot fit a line: got"):
        fit(sizes, latencies)


@settings(deadline=None)
@given(alpha=COST, beta=COST)
def test_half_and_90_percent_of_the_peak_are_reached_where_it_says(alpha, beta):
    line = Fit(alpha, beta, 0, 0)
    peak = 1 / beta
    assert line.half_peak_rows / line.latency_ns(line.half_peak_rows) == pytest.approx(peak / 2)
    assert line.near_peak_rows / line.latency_ns(line.near_peak_rows) == pytest.approx(0.9 * peak)


def test_a_line_that_does_not_rise_has_no_peak():
    assert Fit(5, 0, 0, 0).half_peak_rows == math.inf


@pytest.mark.parametrize(
    ("a", "b", "rows"),
    [
        ((100, 10), (200, 5), 20),
        ((200, 5), (100, 10), 20),
        ((100, 10), (100.5, 9.5), 1),  # at the very end of the range
        ((100, 10), (2000, 5), None),  # beyond it
        ((100, 10), (50, 5), None),  # below everywhere
        ((100, 10), (200, 10), None),
        ((100, 10), (100, 10), None),
    ],
)
def test_lines_cross_where_they_are_equal(a, b, rows):
    found = crossing(Fit(*a, 0, 0), Fit(*b, 0, 0), 1, 128)
    assert found == (None if rows is None else pytest.approx(rows))


def lines(rng, *costs, noise=0.03, rounds=16):
    """Rounds of things whose true costs are known, with a drift that all share."""
    drift = rng.lognormal(0, 0.2, (1, rounds))
    return [
        (alpha + beta * np.array(SIZES, float)[:, None])
        * drift
        * rng.lognormal(0, noise, (len(SIZES), rounds))
        for alpha, beta in costs
    ]


def fitted(runs):
    return [fit(SIZES, list(np.median(values, axis=1))) for values in runs]


def test_a_true_crossover_is_established_within_its_interval():
    runs = lines(np.random.default_rng(1), (100, 10), (300, 5))
    a, b = fitted(runs)
    found = crossover(a, b, list(zip(*resampled(SIZES, runs), strict=True)), 1, 128)
    assert found.established
    assert found.rows.low <= 40 <= found.rows.high
    assert found.rows.low <= found.rows.value <= found.rows.high
    assert not found.excluded


def test_one_that_is_better_everywhere_excludes_a_crossover():
    runs = lines(np.random.default_rng(2), (100, 10), (200, 20))
    a, b = fitted(runs)
    found = crossover(a, b, list(zip(*resampled(SIZES, runs), strict=True)), 1, 128)
    assert found.excluded
    assert not found.established


def test_the_same_line_twice_establishes_neither():
    sure = 0
    for seed in range(20):
        runs = lines(np.random.default_rng(seed), (100, 10), (100, 10))
        a, b = fitted(runs)
        found = crossover(a, b, list(zip(*resampled(SIZES, runs), strict=True)), 1, 128)
        sure += found.established
    assert sure <= 3


def test_the_interval_covers_what_is_true():
    covered = 0
    for seed in range(20):
        runs = lines(np.random.default_rng(seed), (100, 10))
        (one,) = fitted(runs)
        (draws,) = resampled(SIZES, runs)
        found = estimate(one, draws, lambda line: line.half_peak_rows)
        covered += found.low <= 10 <= found.high
    assert covered >= 16


@pytest.mark.parametrize(
    ("sizes", "latencies", "alpha", "beta"),
    [([4], [9], 9, 0), ([1, 2], [5, 7], 3, 2), ([1, 2], [5, 4], 4.390, 0)],
)
def test_a_line_through_two_points_claims_no_error(sizes, latencies, alpha, beta):
    line = through(sizes, latencies)
    assert (line.alpha_ns, line.beta_ns) == pytest.approx((alpha, beta), abs=0.001)
    assert math.isnan(line.worst_error)
    assert math.isnan(line.rms_error)
