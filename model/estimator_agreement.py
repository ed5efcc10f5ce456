"""Hold a graph against the estimator that it was made of."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import ModelError
from model.estimators import predict, spread
from model.examples import standard_normal
from model.linear_argmax import LinearArgmax
from model.reference import SIGMAS, Expected, expect
from model.stored import Stored, read, run, session

EXAMPLES, GROUP_ROWS, SEED = 256, 128, 1


def agreement(graph: Path, estimator: Any, linear: LinearArgmax, least: float) -> int:
    """Count the examples, of 256, for which a graph gives what the estimator predicts.

    They are standard normal as the classifier gets them. Others than those must be near ties: the
    scores of the two labels, in float64, may differ by no more than rounding to what the graph
    computes in, and of x to what is on the wire, can account for (six standard deviations). A
    number that the wire does not hold is not rounded but cut, which accounts for nothing.

    Raises:
        ModelError: rounding does not explain what the others get, or less than the fraction
            `least` of the examples get what the estimator predicts.
    """
    stored, loaded = read(graph), session(graph)
    center, scale = spread(estimator)
    index = {name: i for i, name in enumerate(linear.classes_.tolist())}
    same = unexplained = 0
    for first in range(0, EXAMPLES, GROUP_ROWS):
        x = standard_normal(GROUP_ROWS, linear.n_features_in_, SEED, np.float64, first)
        x *= scale
        x += center
        wanted = np.array([index.get(name, -1) for name in predict(estimator, x).tolist()])
        folded = expect(linear.coef_, x, np.float64, linear.intercept_)
        if folded.wrong(wanted).any():
            raise ModelError(
                f"the {type(estimator).__name__} predicts something else than its coefficients; "
                "wanted one whose prediction is the highest score"
            )
        sent = stored.sent(x)
        labels = run(loaded, sent)
        if stored.expected_of_sent(sent).wrong(labels).any():
            raise ModelError(f"{graph} gives wrong labels; wanted those of its own weights")
        differ = np.flatnonzero(labels != wanted)
        same += len(x) - len(differ)
        unexplained += int((~_explained(stored, linear, folded, x, differ, wanted, labels)).sum())
    _check(stored, type(estimator).__name__, same, unexplained, least)
    return same


def _explained(
    stored: Stored,
    linear: LinearArgmax,
    folded: Expected,
    x: NDArray[np.floating],
    rows: NDArray[np.integer],
    wanted: NDArray[np.integer],
    labels: NDArray[np.integer],
) -> NDArray[np.bool_]:
    """Tell which rows got another label by rounding, bool [rows]."""
    if not len(rows):
        return np.zeros(0, np.bool_)
    tolerance = expect(linear.coef_, x[rows], stored.w.dtype, linear.intercept_).tolerance
    apart = linear.coef_[wanted[rows]] - linear.coef_[labels[rows]]
    with np.errstate(over="ignore", invalid="ignore"):
        # Uniform within half a step to either side.
        rounded = apart * _half_steps(stored, x[rows]) / np.sqrt(3)
        tolerance = tolerance + SIGMAS * np.sqrt(np.square(rounded).sum(axis=1))
        deficit = folded.scores[rows, wanted[rows]] - folded.scores[rows, labels[rows]]
        # Scores beyond the dtype, of which the reference says nothing, are not rounded either.
        explained: NDArray[np.bool_] = (deficit <= tolerance) & np.isfinite(tolerance)
    return explained


def _half_steps(stored: Stored, x: NDArray[np.floating]) -> NDArray[np.floating]:
    """By how much sending a number may change it, [n, features]; what rounds in float32 is 0."""
    if stored.wire.scale is not None:
        return np.full_like(x, stored.wire.scale / 2)
    if stored.wire.dtype == "float16":
        steps: NDArray[np.floating] = np.spacing(np.abs(x).astype(np.float16))
        return steps.astype(np.float64) / 2
    return np.zeros_like(x)


def _check(stored: Stored, estimator: str, same: int, unexplained: int, least: float) -> None:
    taken = stored.wire.dtype if stored.wire.scale is None else f"int8 of {stored.wire.scale:g}"
    what = f"the graph gives what {estimator}.predict does on {same} of {EXAMPLES} examples only"
    if unexplained:
        hint = (
            "; int8 holds 127 times its scale at most (--wire-scale)" if stored.wire.scale else ""
        )
        raise ModelError(
            f"{what}; of the others, rounding to {taken} explains all but {unexplained}{hint}"
        )
    if same < least * EXAMPLES:
        raise ModelError(
            f"{what}, as rounding to {taken} leaves too little of what tells classes apart; "
            f"expected at least {least:g} of them (--least-agreement)"
        )
