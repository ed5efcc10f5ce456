"""Export a scikit-learn estimator after checking that its graph predicts the same."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from model.errors import ModelError
from model.export import INLINE_LIMIT_BYTES, write
from model.from_sklearn import label_file
from model.from_sklearn.agreement import EXAMPLES, agreement
from model.from_sklearn.estimators import fold
from model.graph import checked_wire
from model.layout import graph_path
from model.linear_argmax import to_graph
from model.precision import precision
from model.weights import exported, sha256

LEAST_AGREEMENT = 0.9


@dataclass(frozen=True, slots=True, eq=False)
class Exported:
    """The exported model.

    Attributes:
        path: the graph.
        w: W [classes, features] in the dtype of the graph.
        examples: how many it was compared with the estimator on.
        same: for how many of them it predicted the same as the estimator.
    """

    path: Path
    w: NDArray[np.floating]
    examples: int
    same: int


def export_estimator(
    repository: Path,
    name: str,
    estimator: Any,
    dtype: DTypeLike = "float64",
    *,
    version: int = 1,
    wire: str | None = None,
    scale: float | None = None,
    least_agreement: float = LEAST_AGREEMENT,
    inline_limit_bytes: int = INLINE_LIMIT_BYTES,
) -> Exported:
    """Write a fitted linear classifier, scalers before it folded in, into a repository.

    The graph is that of model.export.export, with a bias added to the scores where there is one;
    its `label` is an index into the estimator's `classes_`, which are stored in the metadata
    `labels` as JSON, and in labels.txt in the model's folder. Estimators compute in float64, so
    the graph predicts the same in that dtype.

    Before the graph replaces another it is run on 256 examples, standard normal as the classifier
    gets them. The estimator may disagree where rounding, to the dtype and to the wire's, decides,
    but on no more than 1 - least_agreement of them; any other difference is an error.

    Raises:
        ModelError: it is not such an estimator, has classes whose text is not one line, or the
            graph predicts something else; an existing model is intact.
        OSError: a file cannot be read or written.
    """
    path = graph_path(repository, name, version)
    linear = fold(estimator)
    lines = label_file.check(linear.classes_)
    w = exported(linear.coef_, dtype)
    taken = checked_wire(wire, scale, w.dtype.name)
    with np.errstate(over="ignore"):
        bias = linear.intercept_.astype(precision(dtype))
    if not np.isfinite(bias).all():
        raise ModelError(f"b has numbers too large for {w.dtype.name}, expected smaller ones")
    properties = {"labels": json.dumps(linear.classes_.tolist(), default=str)}
    if bias.any():
        properties["bias_sha256"] = sha256(bias)
    same = 0

    def compare(graph: Path) -> None:
        nonlocal same
        same = agreement(graph, estimator, linear, least_agreement)

    write(
        path,
        to_graph(linear, w.dtype.name, taken),
        w,
        taken,
        properties,
        inline_limit_bytes=inline_limit_bytes,
        accept=compare,
    )
    label_file.write(path.parents[1], lines)
    return Exported(path, w, EXAMPLES, same)
