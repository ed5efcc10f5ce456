from fractions import Fraction

import numpy as np
import pytest

from model.errors import ModelError
from model.examples import standard_normal
from model.reference import Expected, expect
from model.weights import exported, from_seed

DTYPES = ["float32", "float64"]
CLASSES, FEATURES = 10, 4096


def random_case(dtype, rows=40, features=FEATURES):
    w = from_seed(CLASSES, features, 0).astype(dtype)
    return w, standard_normal(rows, features, 0, dtype)


def summed_one_by_one(w, x):
    """Scores as the plainest loop gives them: [n, classes] in the dtype of x."""
    return np.array([np.cumsum(w * row, axis=1, dtype=x.dtype)[:, -1] for row in x])


def exact(w, x):
    return [
        [
            sum(Fraction(float(a)) * Fraction(float(b)) for a, b in zip(row, c, strict=True))
            for c in w
        ]
        for row in x
    ]


def test_labels_are_the_classes_of_the_highest_scores():
    w = np.array([[1.0, 0], [0, 1], [1, 1]])
    expected = expect(w, np.array([[1.0, -1], [-1, 1], [2, 3], [-2, -1]]), "float64")
    np.testing.assert_array_equal(expected.labels, [0, 1, 2, 1])
    np.testing.assert_array_equal(expected.scores[2], [2, 3, 5])
    assert expected.labels.dtype == np.int64
    assert expected.scores.dtype == expected.tolerance.dtype == np.float64


def test_first_index_wins_a_tie():
    w = np.array([[0.0, 1], [2, 3], [2, 3], [2, 3]])
    expected = expect(w, np.array([[1.0, 1]]), "float32")
    np.testing.assert_array_equal(expected.labels, [1])
    assert expected.near_ties.all()


@pytest.mark.parametrize(("rows", "features"), [(1500, 3), (3, 9000)])
def test_blocks_of_rows_and_features_join_without_a_gap(rows, features):
    w, x = random_case("float32", rows, features)
    expected = expect(w, x, "float32")
    np.testing.assert_allclose(
        expected.scores, np.einsum("nd,cd->nc", x.astype(float), w.astype(float)), atol=1e-9
    )
    tail = expect(w, x[-2:], "float32")
    np.testing.assert_allclose(expected.tolerance[-2:], tail.tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_planted_wrong_label_is_caught(dtype):
    expected = expect(*random_case(dtype), dtype)
    labels = expected.labels.copy()
    assert not expected.wrong(labels).any()
    labels[5] = expected.scores[5].argmin()
    np.testing.assert_array_equal(np.flatnonzero(expected.wrong(labels)), [5])
    assert expected.agreement(labels) == pytest.approx(39 / 40)
    assert expected.agreement(expected.labels) == 1


@pytest.mark.parametrize("label", [-1, CLASSES, 2**62])
def test_a_label_that_is_no_class_is_wrong(label):
    expected = expect(*random_case("float32", rows=2), "float32")
    labels = np.array([expected.labels[0], label])
    np.testing.assert_array_equal(expected.wrong(labels), [False, True])


@pytest.mark.parametrize("dtype", DTYPES)
def test_either_class_of_a_near_tie_is_accepted(dtype):
    w, x = random_case(dtype, rows=1)
    first = expect(w, x, dtype).labels[0]
    twin = (first + 1) % CLASSES
    w[twin] = w[first]
    w[twin, 0] = np.nextafter(w[first, 0], w.dtype.type(np.inf))
    expected = expect(w, x, dtype)
    assert expected.near_ties.all()
    for label in (first, twin):
        assert not expected.wrong(np.array([label])).any()
    assert expected.wrong(np.array([(first + 2) % CLASSES])).all()


def test_scores_just_beyond_the_tolerance_are_no_tie():
    for factor, tie in ((0.99, True), (1.01, False)):
        expected = Expected(np.array([0]), np.array([[factor, 0.0]]), np.array([1.0]))
        assert expected.near_ties.all() == tie
        assert expected.wrong(np.array([1])).all() == (not tie)


@pytest.mark.parametrize("positive", [False, True])
def test_float32_sums_stay_within_a_tolerance_that_is_tight(positive):
    w, x = random_case("float32")
    if positive:
        w, x = np.abs(w), np.abs(x)
    expected = expect(w, x, "float32")
    scores = summed_one_by_one(w, x).astype(np.float64)
    top = np.argsort(expected.scores, axis=1)[:, -2:]
    computed, true = (
        np.diff(np.take_along_axis(s, top, 1))[:, 0] for s in (scores, expected.scores)
    )
    ratio = np.abs(computed - true) / expected.tolerance
    assert 0.05 < ratio.max() < 0.7
    assert not expected.wrong(scores.argmax(axis=1)).any()


@pytest.mark.parametrize(("rows", "features"), [(1, 9000), (3, 2)])
def test_the_tolerance_is_six_standard_deviations_of_the_top_two(rows, features):
    w, x = random_case("float64", rows, features)
    expected = expect(w, x, "float64")
    for row, scores, tolerance in zip(x, expected.scores, expected.tolerance, strict=True):
        deviations = [
            np.sqrt((features + 3) / 3) * abs(scores[c])
            + np.sqrt((features + 3) / 2) * np.linalg.norm(w[c] * row)
            for c in np.argsort(scores)[-2:]
        ]
        u = np.sqrt(2) * 2.0**-53
        assert tolerance == pytest.approx(6 * u / np.sqrt(3) * np.hypot(*deviations), rel=1e-9)


def test_float64_tolerance_covers_the_reference_too():
    w, x = random_case("float64", rows=3, features=1024)
    expected = expect(w, x, "float64")
    scores = summed_one_by_one(w, x)
    for row, true in enumerate(exact(w, x)):
        top = np.argsort(expected.scores[row])[-2:]
        for computed in (scores[row], expected.scores[row]):
            error = sum(
                sign * (Fraction(computed[c]) - true[c])
                for c, sign in zip(top, (1, -1), strict=True)
            )
            assert abs(error) < expected.tolerance[row]
    single = expect(w.astype(np.float32), x, "float32").tolerance
    np.testing.assert_allclose(expected.tolerance, single * 2.0**-29 * np.sqrt(2), rtol=1e-5)


def test_inputs_are_rounded_as_the_model_gets_them():
    w, x = np.array([[1 + 2**-30, 0], [1, 2**-40]]), np.array([[1 + 2**-30, 1]])
    np.testing.assert_array_equal(expect(w, x, "float64").labels, [0])
    expected = expect(w, x, "float32")
    np.testing.assert_array_equal(expected.labels, [1])
    np.testing.assert_array_equal(expected.scores, [[1, 1 + 2**-40]])


def test_a_slice_of_rows_expects_the_same():
    expected = expect(*random_case("float32"), "float32")
    part = expected.rows(slice(10, 20))
    np.testing.assert_array_equal(part.labels, expected.labels[10:20])
    np.testing.assert_array_equal(part.scores, expected.scores[10:20])
    np.testing.assert_array_equal(part.tolerance, expected.tolerance[10:20])


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf, 1e38])
def test_a_row_that_overflows_cannot_be_judged(broken):
    w, x = random_case("float32", rows=3, features=64)
    x[1, 5], w[:, 5] = broken, 1e5
    expected = expect(w, x, "float32")
    np.testing.assert_array_equal(np.isinf(expected.tolerance), [False, True, False])
    np.testing.assert_array_equal(expected.near_ties, [False, True, False])
    for label in range(CLASSES):
        labels = expected.labels.copy()
        labels[1] = label
        assert not expected.wrong(labels).any()
    labels[1] = CLASSES
    np.testing.assert_array_equal(expected.wrong(labels), [False, True, False])


def test_the_first_nan_is_the_label_of_its_row():
    expected = expect(np.array([[1.0, 0], [0, 1]]), np.array([[np.nan, 1]]), "float64")
    np.testing.assert_array_equal(expected.labels, [0])


def test_a_single_class_always_wins_without_a_tie():
    w, x = random_case("float32", rows=4, features=16)
    expected = expect(w[:1], x, "float32")
    np.testing.assert_array_equal(expected.labels, np.zeros(4))
    assert not expected.near_ties.any()
    np.testing.assert_array_equal(expected.wrong(np.array([0, 1, -1, 0])), [0, 1, 1, 0])


@pytest.mark.parametrize(
    "labels", [np.zeros(3, int), np.zeros((2, 1), int), np.zeros(2)], ids=["n", "axes", "floats"]
)
def test_labels_of_another_shape_or_kind_are_refused(labels):
    expected = expect(*random_case("float32", rows=2, features=16), "float32")
    for method in (expected.wrong, expected.agreement):
        with pytest.raises(ModelError, match=r"expected integers \[2\]"):
            method(labels)


@pytest.mark.parametrize(
    "x",
    [np.zeros((2, 15)), np.zeros(16), np.zeros((2, 16), int)],
    ids=["width", "axes", "integers"],
)
def test_examples_of_another_shape_or_kind_are_refused(x):
    with pytest.raises(ModelError, match=r"expected floats \[n, 16\]"):
        expect(np.ones((2, 16)), x, "float32")


def test_a_bias_is_added_to_the_scores():
    rng = np.random.default_rng(0)
    w, x, b = rng.standard_normal((3, 20)), rng.standard_normal((40, 20)), np.array([5.0, 0, -5])
    found = expect(w, x, "float64", b)
    np.testing.assert_allclose(found.scores, x @ w.T + b, rtol=1e-12)
    np.testing.assert_array_equal(found.labels, (x @ w.T + b).argmax(axis=1))
    assert not np.array_equal(found.labels, expect(w, x, "float64").labels)


@pytest.mark.parametrize("seed", range(4))
def test_a_bias_that_undoes_large_sums_widens_the_tolerance(seed):
    rng = np.random.default_rng(seed)
    w = exported(rng.uniform(1, 2, (2, 4096)), "float32")
    b = -w.sum(axis=1, dtype=np.float64)
    found = expect(w, np.ones((1, 4096), np.float32), "float32", b)
    # In float32 sums are rounded to their own size, however small the bias leaves the scores.
    summed = np.cumsum(w, axis=1, dtype=np.float32)[:, -1] + b.astype(np.float32)
    error = abs(np.subtract(*summed.astype(np.float64)) - np.subtract(*found.scores[0]))
    assert error > 0
    assert found.tolerance[0] > error
    assert found.near_ties[0]
