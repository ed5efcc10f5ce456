import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from measure.engine.arrivals import due_times_ns


def first(count, *arguments, **named):
    return list(itertools.islice(due_times_ns(*arguments, **named), count))


@pytest.mark.parametrize(
    ("rate", "due"),
    [
        (1, [0, 10**9, 2 * 10**9]),
        (3, [0, 333_333_333, 666_666_666]),
        (1000, [0, 10**6, 2 * 10**6]),
    ],
)
def test_a_constant_rate_is_evenly_spaced(rate, due):
    assert first(3, "constant", rate) == due


def test_a_constant_rate_does_not_drift():
    assert first(7 * 3600 + 1, "constant", 7)[-1] == 3600 * 10**9


@settings(deadline=None)
@given(rate=st.floats(0.5, 10_000), parts=st.integers(1, 5))
def test_parts_of_a_constant_rate_make_the_whole(rate, parts):
    together = sorted(
        due for part in range(parts) for due in first(10, "constant", rate, part=part, parts=parts)
    )
    assert together == first(10 * parts, "constant", rate)


@pytest.mark.parametrize("parts", [1, 4])
def test_poisson_arrivals_have_their_rate_and_its_spread(parts):
    rate, count = 200, 20_000 // parts
    for part in range(parts):
        gaps = np.diff([0, *first(count, "poisson", rate, seed=3, part=part, parts=parts)])
        assert gaps.min() >= 0
        # Exponential gaps: mean and standard deviation are equal, to about 3 standard errors.
        for moment in (gaps.mean(), gaps.std()):
            assert moment == pytest.approx(parts * 1e9 / rate, rel=4 / count**0.5)


def test_poisson_arrivals_repeat_with_their_seed_only():
    def drawn(seed, part):
        return first(50, "poisson", 10, seed=seed, part=part, parts=2)

    assert drawn(1, 0) == drawn(1, 0)
    assert drawn(1, 0) != drawn(2, 0)
    assert drawn(1, 0) != drawn(1, 1)
