import math

import numpy as np
import pytest

from measure.core.comparison import (
    compare,
    fewest_pairs,
    fewest_to_claim,
    interleaved,
    ratio,
    sign_test,
)


def noisy(rng, factor, pairs, drift):
    """Values whose pairs share a drift, as measurements taken next to each other do."""
    return list(factor * drift * rng.lognormal(0, 0.05, pairs))


def test_ratio_is_the_median_of_the_ratios_of_pairs():
    found = ratio([2, 9, 40], [1, 3, 10])
    assert found.median == pytest.approx(3)
    assert found.pairs == 3
    assert found.low == pytest.approx(2)
    assert found.high == pytest.approx(4)


def test_ratio_of_an_even_count_is_the_geometric_middle():
    assert ratio([2, 8], [1, 1]).median == pytest.approx(4)


def test_swapping_the_sides_inverts_everything():
    rng = np.random.default_rng(1)
    a, b = rng.lognormal(0.3, 0.2, 11), rng.lognormal(0, 0.2, 11)
    forth, back = ratio(list(a), list(b)), ratio(list(b), list(a))
    assert back.median == pytest.approx(1 / forth.median)
    # Quantiles are interpolated, so the tails agree within the resampling.
    assert back.low == pytest.approx(1 / forth.high, rel=0.02)
    assert back.high == pytest.approx(1 / forth.low, rel=0.02)


def test_the_same_values_give_the_same_interval():
    a, b = [3.0, 4.0, 5.0, 4.5], [1.0, 1.2, 1.1, 0.9]
    assert ratio(a, b) == ratio(a, b)


def test_one_pair_has_no_width():
    found = ratio([6], [3])
    assert found.low == pytest.approx(found.median) == pytest.approx(found.high) == pytest.approx(2)


def test_a_scale_that_both_sides_share_changes_nothing():
    rng = np.random.default_rng(2)
    drift = np.exp(np.linspace(0, 3, 12))
    a, b = rng.lognormal(0.1, 0.05, 12), rng.lognormal(0, 0.05, 12)
    steady, drifting = ratio(list(a), list(b)), ratio(list(a * drift), list(b * drift))
    assert drifting.median == pytest.approx(steady.median)
    assert drifting.low == pytest.approx(steady.low)
    assert drifting.high == pytest.approx(steady.high)


def test_a_thing_compared_with_itself_rarely_differs():
    rng = np.random.default_rng(3)
    drift = np.exp(np.linspace(0, 1, 12))
    runs = [ratio(noisy(rng, 1, 12, drift), noisy(rng, 1, 12, drift)) for _ in range(60)]
    assert sum(found.differs for found in runs) <= 9


def test_a_real_difference_is_found():
    rng = np.random.default_rng(4)
    drift = np.exp(np.linspace(0, 1, 12))
    found = ratio(noisy(rng, 1.3, 12, drift), noisy(rng, 1, 12, drift))
    assert found.differs
    assert found.low < 1.3 < found.high


def test_being_less_differs_too():
    assert ratio([1, 1.1, 0.9], [2, 2, 2]).differs


def test_equal_values_do_not_differ():
    assert not ratio([5, 5, 5], [5, 5, 5]).differs


@pytest.mark.parametrize(
    ("a", "b"),
    [([], []), ([1], []), ([1, 2], [1]), ([0, 1], [1, 1]), ([1, 1], [1, -1])],
    ids=["none", "no partner", "unequal", "zero", "negative"],
)
def test_what_makes_no_pairs_is_refused(a, b):
    with pytest.raises(ValueError):  # noqa: PT011
        ratio(a, b)


def test_every_other_round_goes_backwards():
    order = []

    def run(name):
        return lambda: order.append(name) or float(len(order))

    values = interleaved([run("a"), run("b"), run("c")], 4)
    assert "".join(order) == "abccbaabccba"
    assert values == [[1, 6, 7, 12], [2, 5, 8, 11], [3, 4, 9, 10]]


def test_a_steady_drift_favours_nobody():
    clock = iter(range(1000))
    values = interleaved([lambda: float(next(clock))] * 2, 10)
    assert math.fsum(values[0]) == math.fsum(values[1])


def test_no_rounds_run_nothing():
    assert interleaved([lambda: pytest.fail("ran")], 0) == [[]]


@pytest.mark.parametrize(
    ("above", "below", "p"),
    [(0, 0, 1), (1, 0, 1), (5, 5, 1), (10, 0, 2 / 1024), (0, 10, 2 / 1024), (9, 1, 22 / 1024)],
)
def test_sign_test_counts_the_ways_to_be_so_uneven(above, below, p):
    a, b = [2.0] * above + [1.0] * below + [3.0], [1.0] * above + [2.0] * below + [3.0]
    assert sign_test(a, b) == pytest.approx(p)


@pytest.mark.parametrize(("comparisons", "pairs"), [(1, 6), (22, 10), (66, 12)])
def test_fewest_pairs_are_those_that_can_pass_at_all(comparisons, pairs):
    assert fewest_pairs(comparisons, 0.05) == pairs
    level = 0.05 / comparisons
    assert sign_test([2.0] * pairs, [1.0] * pairs) <= level
    assert sign_test([2.0] * (pairs - 1), [1.0] * (pairs - 1)) > level


@pytest.mark.parametrize("comparisons", [1, 2, 22, 66, 1000])
def test_fewest_to_claim_is_where_a_difference_begins_to_be_claimed(comparisons):
    pairs, level = fewest_to_claim(comparisons), 0.05 / comparisons
    assert compare([1.001] * pairs, [1.0] * pairs, level).differs
    assert not compare([9.0] * (pairs - 1), [1.0] * (pairs - 1), level).differs


def test_more_confidence_is_a_wider_interval_of_the_same_median():
    rng = np.random.default_rng(4)
    a, b = list(rng.lognormal(0, 0.1, 16)), list(rng.lognormal(0, 0.1, 16))
    usual, wide = ratio(a, b), ratio(a, b, confidence=0.999)
    assert wide.median == usual.median
    assert wide.low < usual.low < usual.high < wide.high


@pytest.mark.parametrize(
    ("above", "below", "level", "differs"),
    [
        (10, 0, 0.05, True),
        (9, 0, 0.05, False),  # too few pairs
        (9, 1, 0.05, True),
        (9, 1, 0.02, False),
        (8, 2, 0.05, False),  # only the interval excludes 1
    ],
)
def test_a_difference_takes_pairs_an_interval_and_a_sign_test(above, below, level, differs):
    a = [1.5] * above + [0.9] * below
    found = compare(a, [1.0] * len(a), level)
    assert found.differs is differs
    assert found.ratio.differs
    assert compare([1.0] * len(a), a, level).differs is differs
