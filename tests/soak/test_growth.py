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


def noise_alone(seed):
    return slope(STEPS, noise(seed))


def test_growth_is_found_in_noise_with_its_size():
    grown = [slope(STEPS, noise(seed) + 200 * np.asarray(STEPS)) for seed in range(4)]
    assert all(found.grows and not found.holds_zero for found in grown)
    assert all(found.per_step == pytest.approx(200, rel=0.25) for found in grown)
    assert all(found.low < 200 < found.high for found in grown)


@pytest.mark.slow
def test_the_interval_of_noise_alone_holds_zero_as_often_as_it_says():
    missed = [not noise_alone(seed).holds_zero for seed in range(8)]
    # One in twenty by its definition.
    assert sum(missed) <= 1


def test_one_late_step_is_no_growth():
    values = np.full(POINTS, 90e6)
    values[-2:] += 2**20
    found = slope(STEPS, values)
    assert found.per_step == 0
    assert not found.grows


def test_one_step_halfway_does_not_tell_of_growth():
    values = np.full(POINTS, 90e6)
    values[POINTS // 2 :] += 2**16
    found = slope(STEPS, values)
    assert found.per_step > 0
    assert found.holds_zero


def test_steps_that_go_on_are_growth():
    values = 90e6 + 2**18 * (np.arange(POINTS) // 4)
    found = slope(STEPS, values)
    assert found.grows
    assert found.per_step == pytest.approx(2**18 / 400, rel=0.1)


def test_memory_that_is_given_back_does_not_grow():
    assert not slope(STEPS, noise(0) - 100 * np.arange(0, POINTS * 100, 100)).grows


@pytest.mark.parametrize("counts", [(7, 7), (9, 8)])
def test_too_few_or_unequal_values_are_refused(counts):
    with pytest.raises(ValueError, match=f"got {counts[0]} steps and {counts[1]} values"):
        slope(range(counts[0]), np.zeros(counts[1]))
