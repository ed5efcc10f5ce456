import numpy as np
import pytest

from soak.growth import slope

POINTS = 48
STEPS = range(0, POINTS * 100, 100)


def noise(seed):
    """Resident memory as it wanders: each sample close to the one before."""
    wander = np.zeros(POINTS)
    for at, change in enumerate(np.random.default_rng(seed).normal(0, 50_000, POINTS)):
        wander[at] = 0.5 * wander[at - 1] + change if at else change
    return 90e6 + wander


def test_growth_is_found_in_noise_with_its_size():
    grown = [slope(STEPS, noise(seed) + 100 * np.asarray(STEPS)) for seed in range(10)]
    assert all(found.grows for found in grown)
    assert all(found.per_step == pytest.approx(100, rel=0.5) for found in grown)
    # The bootstrap of few blocks is a little bolder than its 95%.
    assert sum(found.low < 100 < found.high for found in grown) >= 6


def test_the_interval_of_noise_alone_holds_zero_as_often_as_it_says():
    grows = [slope(STEPS, noise(seed)).grows for seed in range(20)]
    # One in forty by its definition.
    assert sum(grows) <= 4


def test_one_late_step_is_no_growth():
    values = np.full(POINTS, 90e6)
    values[-2:] += 2**20
    found = slope(STEPS, values)
    assert found.per_step == 0
    assert not found.grows


def test_memory_that_is_given_back_does_not_grow():
    assert not slope(STEPS, noise(0) - 100 * np.arange(0, POINTS * 100, 100)).grows


@pytest.mark.parametrize("counts", [(7, 7), (9, 8)])
def test_too_few_or_unequal_values_are_refused(counts):
    with pytest.raises(ValueError, match=f"{counts[0]} steps and {counts[1]} values came"):
        slope(range(counts[0]), np.zeros(counts[1]))
