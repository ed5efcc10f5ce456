import numpy as np
import pytest

from model.errors import ModelError
from model.examples import standard_normal
from model.weights import from_seed

ROWS, FEATURES, SEED = 200, 33, 7
DTYPES = ["float32", "float64"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("start", "stop"), [(0, 1), (0, 64), (63, 65), (64, 128), (10, 20), (70, 199), (199, 200)]
)
def test_any_slice_of_rows_is_the_same_however_it_is_asked_for(dtype, start, stop):
    whole = standard_normal(ROWS, FEATURES, SEED, dtype)
    part = standard_normal(stop - start, FEATURES, SEED, dtype, first_row=start)
    np.testing.assert_array_equal(part, whole[start:stop])


@pytest.mark.parametrize("dtype", DTYPES)
def test_examples_come_in_the_wanted_shape_and_dtype(dtype):
    x = standard_normal(3, FEATURES, SEED, dtype)
    assert x.shape == (3, FEATURES)
    assert x.dtype == np.dtype(dtype)


def test_another_seed_gives_other_examples():
    a, b = (standard_normal(2, FEATURES, seed, "float32") for seed in (0, 1))
    assert not np.isin(a, b).any()


def test_no_row_repeats_in_another_block():
    x = standard_normal(256, 4, SEED, "float64")
    assert len(np.unique(x)) == x.size


@pytest.mark.parametrize("seed", [0, 1, 2**32])
def test_examples_share_no_number_with_weights_of_the_same_seed(seed):
    w = from_seed(256, FEATURES, seed)
    x = standard_normal(256, FEATURES, seed, "float64")
    assert not np.isin(x, w).any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_examples_are_standard_normal(dtype):
    x = standard_normal(256, 1024, SEED, dtype).astype(np.float64)
    # Five standard deviations of the sample mean, variance and fourth moment.
    slack = 5 / np.sqrt(x.size)
    assert abs(x.mean()) < slack
    assert abs(np.square(x).mean() - 1) < slack * np.sqrt(2)
    assert abs((x**4).mean() - 3) < slack * np.sqrt(96)


@pytest.mark.parametrize(
    ("arguments", "came"),
    [
        ((0, 3, 0, "float32"), "0 rows"),
        ((3, 0, 0, "float32"), "of 0 features"),
        ((3, 3, -1, "float32"), "seed is -1"),
        ((3, 3, 0, "float32", -1), "first row is -1"),
        ((3, 3, 0, "float16"), "dtype is float16"),
    ],
)
def test_impossible_examples_are_refused(arguments, came):
    with pytest.raises(ModelError, match=came):
        standard_normal(*arguments)
