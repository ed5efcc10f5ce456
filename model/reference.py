"""The float64 reference that says which labels a correct model may give."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike, NDArray

from model.errors import ModelError
from model.precision import largest, precision, unit_roundoff
from model.weights import exported

# Tall blocks of few features: the BLAS threads wait for each other once per few hundred features,
# which is slow if another process, such as the server under test, holds a core.
BLOCK_ROWS = 1024
BLOCK_FEATURES = 8192
SIGMAS = 6.0


@dataclass(frozen=True, slots=True, eq=False)
class Expected:
    """Expected results of n examples: classes count from 0, the first index wins a tie.

    Attributes:
        labels: int64 [n], the class of the highest score (of the first NaN, if there is one).
        scores: float64 [n, classes].
        tolerance: float64 [n], how far below the best a score may be and still win by rounding.
    """

    labels: NDArray[np.int64]
    scores: NDArray[np.float64]
    tolerance: NDArray[np.float64]

    @property
    def near_ties(self) -> NDArray[np.bool_]:
        """Rows that rounding may decide, bool [n]: top two scores within the tolerance."""
        if self.scores.shape[1] < 2:
            return np.isinf(self.tolerance)
        top = np.partition(self.scores, -2, axis=1)
        with np.errstate(invalid="ignore"):
            lead: NDArray[np.float64] = top[:, -1] - top[:, -2]
            # Compared in this direction, NaN counts as a tie.
            ties: NDArray[np.bool_] = ~(lead > self.tolerance)
        return ties

    def wrong(self, labels: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Return the labels that rounding cannot explain, bool [n].

        A label is wrong when it is no class, or when its reference score is below the best by
        more than the tolerance.

        Raises:
            ModelError: labels are not integers [n].
        """
        checked = self._checked(labels)
        outside = (checked < 0) | (checked >= self.scores.shape[1])
        inside = np.where(outside, 0, checked).astype(np.int64)
        with np.errstate(invalid="ignore"):
            deficit = _at(self.scores, self.labels) - _at(self.scores, inside)
        wrong: NDArray[np.bool_] = outside | (deficit > self.tolerance)
        return wrong

    def agreement(self, labels: NDArray[np.integer]) -> float:
        """Return the fraction of labels identical to the reference, near ties or not.

        Raises:
            ModelError: labels are not integers [n], or n is 0.
        """
        checked = self._checked(labels)
        if not len(checked):
            raise ModelError("got no labels, expected at least 1")
        return float(np.mean(checked == self.labels))

    def rows(self, rows: slice | NDArray[np.integer]) -> "Expected":
        """Return the expected results of some examples: for a slice views, no copies."""
        return Expected(self.labels[rows], self.scores[rows], self.tolerance[rows])

    def _checked(self, labels: NDArray[np.integer]) -> NDArray[np.integer]:
        array = np.asarray(labels)
        if array.shape != self.labels.shape or array.dtype.kind not in "iu":
            raise ModelError(
                f"labels are {array.dtype} {list(array.shape)}, "
                f"expected integers {list(self.labels.shape)}"
            )
        return array


def expect(
    weights: NDArray[np.generic],
    x: NDArray[np.floating],
    dtype: DTypeLike,
    bias: NDArray[np.floating] | None = None,
) -> Expected:
    """Compute in float64 the expected results of a model of this dtype for x.

    W [classes, features], x [n, features] and the bias [classes], which is added last, are first
    rounded to dtype, as the model gets them. Memory beyond x is bounded: x is converted in blocks
    of at most 64 MiB.

    The tolerance bounds the error of the difference of two scores s = sum of p_k = w_k x_k, each
    summed in dtype in any order. Rounding errors are modelled as independent variables of mean
    zero (Higham, Mary: A new approach to probabilistic rounding error analysis, SIAM J. Sci.
    Comput. 41(5), 2019), uniform within u, the unit roundoff. One rounding of a partial sum s_k
    then adds u^2/3 s_k^2 to the variance. Of all orders, adding one term after the other rounds
    the longest sums; there, for terms whose order has nothing to do with their sign, s_k is a
    drift (k/n) s plus a walk of size sqrt(k/n) ||p||_2. Summed over k, by the triangle inequality,

        std(s) <= u/sqrt(3) * (sqrt(n/3) |s| + sqrt(n/2) ||p||_2)

    where n is taken as features + 3, to cover the rounding of the products as well as the sums of
    k and k^2 at small n. The tolerance is six standard deviations of the difference of the top
    two classes (root of the sum of squares). The reference rounds like a float64 model, so u^2
    is the sum of both squares: the model's share for float32, twice it for float64. A bias b is one
    more term. It is added last whatever its sign, so sums drift to s - b before it; as ||p||_2 is
    at least |b|, the bound on the walk covers that, too, but for a factor below sqrt(2).

    Not covered: formats coarser than dtype inside the model (TF32, bfloat16), underflow, sums
    whose order follows the sign of the terms. A row with a score that is not finite, or not in
    dtype, cannot be judged: its tolerance is infinite, so it is a near tie, any class may win.

    Raises:
        ModelError: W, x or dtype is not of this kind, or their features differ.
    """
    target = precision(dtype)
    w = exported(weights, target)
    _check_examples(x, w.shape[1])
    b = np.zeros(len(w)) if bias is None else bias.astype(target).astype(np.float64)
    scores = np.tile(b, (len(x), 1))
    squares = np.square(scores)
    # One buffer for all blocks: fresh memory would cost more than the conversion.
    buffer = np.empty((min(BLOCK_ROWS, len(x)), min(BLOCK_FEATURES, w.shape[1])))
    with np.errstate(over="ignore", invalid="ignore"):
        for first_row in range(0, len(x), BLOCK_ROWS):
            rows = slice(first_row, first_row + BLOCK_ROWS)
            for first in range(0, w.shape[1], BLOCK_FEATURES):
                columns = slice(first, first + BLOCK_FEATURES)
                rounded = x[rows, columns].astype(target, copy=False)
                x_block = buffer[: rounded.shape[0], : rounded.shape[1]]
                x_block[...] = rounded
                w_block = w[:, columns].astype(np.float64)
                scores[rows] += x_block @ w_block.T
                np.square(x_block, out=x_block)
                np.square(w_block, out=w_block)
                squares[rows] += x_block @ w_block.T
    labels = scores.argmax(axis=1)
    return Expected(
        labels, scores, _tolerance(scores, np.sqrt(squares), labels, target, w.shape[1])
    )


def _tolerance(
    scores: NDArray[np.float64],
    norms: NDArray[np.float64],
    labels: NDArray[np.int64],
    dtype: DTypeLike,
    features: int,
) -> NDArray[np.float64]:
    """Bound the error of the difference of each row's top two scores, float64 [n]."""
    u = np.hypot(unit_roundoff(dtype), unit_roundoff(np.float64))
    n = features + 3
    others = scores.copy()
    np.put_along_axis(others, labels[:, None], -np.inf, axis=1)
    variance = np.zeros(len(scores))
    with np.errstate(over="ignore", invalid="ignore"):
        # With a single class the second is the first again, which only widens the tolerance.
        for top in (labels, others.argmax(axis=1)):
            drift, walk = np.abs(_at(scores, top)), _at(norms, top)
            variance += np.square(np.sqrt(n / 3) * drift + np.sqrt(n / 2) * walk) / 3
        representable = np.abs(scores).max(axis=1) <= largest(dtype)
        judged = representable & np.isfinite(variance)
        return np.where(judged, SIGMAS * u * np.sqrt(variance), np.inf)


def _at(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the score of each row's label, float64 [n]."""
    return np.take_along_axis(scores, labels[:, None], axis=1)[:, 0]


def _check_examples(x: NDArray[np.floating], features: int) -> None:
    if x.ndim != 2 or x.shape[1] != features or x.dtype.kind != "f":
        raise ModelError(f"x is {x.dtype} {list(x.shape)}, expected floats [n, {features}]")
