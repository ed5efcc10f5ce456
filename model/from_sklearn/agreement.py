"""Compare a graph with the estimator that it was made from."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import ModelError
from model.examples import standard_normal
from model.from_sklearn.estimators import predict, spread
from model.linear_argmax import LinearArgmax
from model.reference import SIGMAS, Expected, expect
from model.stored import Stored, read, run, session

EXAMPLES, GROUP_ROWS, SEED = 256, 128, 1


def agreement(graph: Path, estimator: Any, linear: LinearArgmax, least: float) -> int:
    """Count the examples, of 256, for which a graph predicts the same as the estimator.

    They are standard normal as the classifier gets them. All others must be near ties: the
    scores of the two labels, in float64, may differ by no more than rounding to what the graph
    computes in, and of x to the wire's dtype, can account for (six standard deviations). A number
    that the wire cannot hold is not rounded but cut, which accounts for nothing.

    Raises:
        ModelError: rounding does not explain the labels of the others, or less than the fraction
            `least` of the examples get the label that the estimator predicts.
    """
    stored, loaded = read(graph), session(graph)
    center, scale = spread(estimator)
    index = {name: i for i, name in enumerate(linear.classes_.tolist())}
    same = unexplained = 0
    for first in range(0, EXAMPLES, GROUP_ROWS):
        x = standard_normal(GROUP_ROWS, linear.n_features_in_, SEED, np.float64, first)
        x *= scale
        x += center
        predicted = np.array([index.get(name, -1) for name in predict(estimator, x).tolist()])
        folded = expect(linear.coef_, x, np.float64, linear.intercept_)
        if folded.wrong(predicted).any():
            raise ModelError(
                f"the {type(estimator).__name__} predicts something else than its coefficients, "
                "expected one whose prediction is the highest score"
            )
        sent = stored.sent(x)
        labels = run(loaded, sent)
        if stored.expected_of_sent(sent).wrong(labels).any():
            raise ModelError(f"{graph} returns wrong labels, expected those of its own weights")
        differ = np.flatnonzero(labels != predicted)
        same += len(x) - len(differ)
        explained = _explained(stored, linear, folded, x, differ, predicted, labels)
        unexplained += int((~explained).sum())
    _check(stored, type(estimator).__name__, same, unexplained, least)
    return same


def _explained(
    stored: Stored,
    linear: LinearArgmax,
    folded: Expected,
    x: NDArray[np.floating],
    rows: NDArray[np.integer],
    predicted: NDArray[np.integer],
    labels: NDArray[np.integer],
) -> NDArray[np.bool_]:
    """Return the rows whose other label rounding explains, bool [rows]."""
    if not len(rows):
        return np.zeros(0, np.bool_)
    tolerance = expect(linear.coef_, x[rows], stored.w.dtype, linear.intercept_).tolerance
    apart = linear.coef_[predicted[rows]] - linear.coef_[labels[rows]]
    with np.errstate(over="ignore", invalid="ignore"):
        # Uniform within half a step to either side.
        rounded = apart * _half_steps(stored, x[rows]) / np.sqrt(3)
        tolerance = tolerance + SIGMAS * np.sqrt(np.square(rounded).sum(axis=1))
        deficit = folded.scores[rows, predicted[rows]] - folded.scores[rows, labels[rows]]
        # Scores that overflow the dtype, which the reference cannot judge, are not rounded either.
        explained: NDArray[np.bool_] = (deficit <= tolerance) & np.isfinite(tolerance)
    return explained


def _half_steps(stored: Stored, x: NDArray[np.floating]) -> NDArray[np.floating]:
    """The most that sending may change a number, [n, features]; 0 for float32."""
    if stored.wire.scale is not None:
        return np.full_like(x, stored.wire.scale / 2)
    if stored.wire.dtype == "float16":
        steps: NDArray[np.floating] = np.spacing(np.abs(x).astype(np.float16))
        return steps.astype(np.float64) / 2
    return np.zeros_like(x)


def _check(stored: Stored, estimator: str, same: int, unexplained: int, least: float) -> None:
    taken = stored.wire.dtype if stored.wire.scale is None else f"int8 of {stored.wire.scale:g}"
    what = f"the graph agrees with {estimator}.predict on only {same} of {EXAMPLES} examples"
    if unexplained:
        hint = (
            "; int8 holds 127 times its scale at most (--wire-scale)" if stored.wire.scale else ""
        )
        raise ModelError(
            f"{what}; of the others, rounding to {taken} does not explain {unexplained}{hint}"
        )
    if same < least * EXAMPLES:
        raise ModelError(
            f"{what}, because rounding to {taken} blurs the difference between classes; "
            f"expected at least {least:g} of them (--least-agreement)"
        )
