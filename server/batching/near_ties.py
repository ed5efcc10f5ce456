"""Find the rows whose label depends on rounding, and so on the size of their batch.

Kernels differ by the number of rows and threads, and sum in another order. The bound on what that
changes is the one that model.reference explains and derives (Higham, Mary: A new approach to
probabilistic rounding error analysis, SIAM J. Sci. Comput. 41(5), 2019): the error of a score s,
summed of n products p in any order with a unit roundoff of u, has a standard deviation of at most

    u/sqrt(3) * (sqrt(n/3) |s| + sqrt(n/2) ||p||)

Two scores of this batch are compared with the same two of another, four such errors: six standard
deviations of their sum are 12 times one of them. ||p||, which would take all products, is at most
the smaller of max|x| ||w|| and ||x|| max|w|, plus the bias; for numbers that are spread evenly that
is some times too large, so the answer errs towards "may depend".
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.batching.argmax_labels import ArgmaxLabel

_DEVIATIONS = 12.0
# Numbers that are read at once. Longer rows are read one by one, and only where that may matter,
# as reading all of them takes a tenth as long as receiving them does: a lead is beyond doubt when
# it suffices even if products cancel down to this part of their norm.
_BLOCK = 2**14
_CANCELLED = 32.0


def any_near_tie(
    labels: Sequence[ArgmaxLabel],
    inputs: Mapping[str, NDArray[Any]],
    outputs: Mapping[str, NDArray[Any]],
    rows: int,
) -> NDArray[np.bool_]:
    """Whether another batch may give a row another of the labels, bool [rows].

    `outputs` hold the scores of the rows, `inputs` perhaps more that pad.
    """
    near = np.zeros(rows, np.bool_)
    for label in labels:
        near |= near_ties(label, inputs[label.input][:rows], outputs[label.scores])
    return near


def near_ties(label: ArgmaxLabel, x: NDArray[Any], scores: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether another batch may give a row another label, bool [rows].

    `x` [rows, features] is what the graph got for `label.input`, `scores` [rows, classes] what it
    made of it, float32 or float64. A row with scores that are not finite may depend on the batch.
    """
    rows, classes = scores.shape
    if classes < 2:
        return np.zeros(rows, np.bool_)
    best = np.partition(-scores if label.smallest else scores, -2, axis=1)[:, -2:]
    best = best.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        lead = best[:, 1] - best[:, 0]
        size = np.maximum(scores.max(axis=1), -scores.min(axis=1)).astype(np.float64)
        near = np.ones(rows, np.bool_)
        if label.features > _BLOCK:
            products = _CANCELLED * np.maximum(size, label.bias_most)
            near = _within(lead, _tolerance(label, scores.dtype, size, products))
        doubtful = np.flatnonzero(near)
        step = max(1, _BLOCK // label.features)
        for at in range(0, len(doubtful), step):
            some = doubtful[at : at + step]
            block = x[some] if step > 1 else x[some[0] : some[0] + 1]
            products = _products(label, block)
            near[some] = _within(lead[some], _tolerance(label, scores.dtype, size[some], products))
    return near


def _within(lead: NDArray[Any], tolerance: NDArray[Any]) -> NDArray[np.bool_]:
    # Compared in this direction, NaN counts as a tie.
    within: NDArray[np.bool_] = ~(lead > tolerance)
    return within


def _tolerance(
    label: ArgmaxLabel, dtype: np.dtype[Any], scores: NDArray[Any], products: NDArray[Any]
) -> NDArray[Any]:
    """Bound on the difference of leads, for scores up to `scores`, products of norm `products`."""
    terms = label.features + 3  # covers the rounding of the products and of the bias
    deviation = math.sqrt(terms / 3) * scores + math.sqrt(terms / 2) * products
    tolerance: NDArray[Any] = (
        _DEVIATIONS * float(np.finfo(dtype).eps) / 2 / math.sqrt(3) * deviation
    )
    return tolerance


def _products(label: ArgmaxLabel, x: NDArray[Any]) -> NDArray[Any]:
    """At least the norm of the products of each row with the weights of any class."""
    x = x if x.dtype == np.float64 else x.astype(np.float32, copy=False)
    most = np.maximum(x.max(axis=1), -x.min(axis=1)).astype(np.float64)
    norm = np.sqrt(np.einsum("rf,rf->r", x, x)).astype(np.float64)
    bound = np.minimum(most * label.weights_norm, norm * label.weights_most)
    products: NDArray[Any] = label.input_scale * bound + label.bias_most
    return products
