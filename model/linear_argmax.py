"""The linear model as a scikit-learn estimator that skl2onnx turns into our graph.

Importing this module registers the converter, so `skl2onnx.to_onnx` takes the estimator, alone or
at the end of a pipeline. skl2onnx makes of scikit-learn's own linear classifiers the operator
LinearClassifier, whose weights ONNX Runtime does not prepack; ours become MatMul.
"""

from typing import Any, Self

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from skl2onnx import convert_sklearn, update_registered_converter
from skl2onnx.common.data_types import (
    DoubleTensorType,
    Float16TensorType,
    FloatTensorType,
    Int8TensorType,
    Int64TensorType,
)
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from model.errors import ModelError
from model.graph import ELEMENT_TYPES, IR_VERSION, OPSET, Names, Wire, nodes, small_tensors
from model.weights import exported
from protos.quantize import DEFAULT_SCALE

ALIAS = "ArgmaxServingLinearArgmax"
# Input dtypes of a graph, with the dtype of the computation.
_TAKEN = {
    DoubleTensorType: ("float64", None),
    FloatTensorType: ("float32", None),
    Float16TensorType: ("float32", "float16"),
    Int8TensorType: ("float32", "int8"),
}


class LinearArgmax(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """`classes_[argmax_i (coef_ x + intercept_)_i]`, the first or the last index winning a tie.

    Made by `of`; fitting changes nothing.

    Attributes:
        coef_: float64 [classes, features], at least two classes.
        intercept_: float64 [classes].
        classes_: [classes], what each index stands for.
        last_of_ties_: whether the last of equal scores wins.
    """

    # The default of estimators saved before there was a choice.
    last_of_ties_ = False

    @classmethod
    def of(
        cls,
        coef: NDArray[np.number],
        intercept: NDArray[np.number] | float,
        classes: NDArray[np.generic],
        *,
        last_of_ties: bool = False,
    ) -> Self:
        """Make the estimator from coefficients as scikit-learn's linear classifiers hold them.

        `coef` is [classes, features], or for two classes one row: of two scores, 0 and its own,
        the second is the higher one just where its own is positive.

        Raises:
            ModelError: the shapes do not fit each other, or not all numbers are finite.
        """
        w = exported(np.atleast_2d(coef), "float64")
        b = np.broadcast_to(np.asarray(intercept, np.float64), len(w))
        if len(w) == 1 and len(classes) == 2:
            w, b = np.vstack([np.zeros_like(w), w]), np.concatenate([[0.0], b])
        if len(w) != len(classes) or not np.isfinite(b).all():
            raise ModelError(
                f"there are {len(classes)} classes, coef_ {list(np.shape(coef))}, "
                f"intercept_ {list(np.shape(intercept))}, expected finite numbers, a row per class"
            )
        made = cls()
        made.coef_, made.intercept_, made.classes_ = w, b, np.asarray(classes)
        made.n_features_in_ = w.shape[1]
        made.last_of_ties_ = last_of_ties
        return made

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: N803
        """Leave everything as it is, as scikit-learn's FrozenEstimator does."""
        check_is_fitted(self)
        return self

    def decision_function(self, X: Any) -> NDArray[np.float64]:  # noqa: N803
        """Return the scores of examples [n, features], float64 [n, classes]."""
        check_is_fitted(self)
        x = validate_data(self, X, dtype=np.float64, reset=False)
        scores: NDArray[np.float64] = x @ self.coef_.T + self.intercept_
        return scores

    def predict(self, X: Any) -> NDArray[Any]:  # noqa: N803
        """Return the classes of examples [n, features], [n]."""
        scores = self.decision_function(X)
        last = scores.shape[1] - 1
        indices = (
            last - scores[:, ::-1].argmax(axis=1) if self.last_of_ties_ else scores.argmax(axis=1)
        )
        labels: NDArray[Any] = self.classes_[indices]
        return labels


def to_graph(linear: LinearArgmax, dtype: str, taken: Wire | None) -> onnx.ModelProto:
    """Convert the estimator to a graph whose W has no data yet (see model.export.write)."""
    wire = taken.dtype if taken else None
    kind = next(kind for kind, what in _TAKEN.items() if what == (dtype, wire))
    options = {"weights": False, "scale": taken.scale if taken else None}
    model: onnx.ModelProto = convert_sklearn(
        linear,
        "linear_argmax",
        initial_types=[("x", kind([None, linear.n_features_in_]))],
        target_opset={"": OPSET},
        options={LinearArgmax: options},
    )
    model.ir_version = IR_VERSION
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    return model


def _computed(operator: Any) -> tuple[str, str | None]:
    """Return what the graph computes in, and the wire if that is narrower."""
    kind = operator.inputs[0].type
    for taken, what in _TAKEN.items():
        if isinstance(kind, taken):
            return what
    raise ModelError(f"x is {kind}, expected one of {', '.join(kind.__name__ for kind in _TAKEN)}")


def _parse(scope: Any, model: LinearArgmax, inputs: Any, custom_parsers: Any = None) -> Any:
    """Name the outputs as our graphs do, `label` before `scores`."""
    operator = scope.declare_local_operator(ALIAS, model)
    operator.inputs = inputs
    for name, kind in (("label", Int64TensorType()), ("scores", FloatTensorType())):
        operator.outputs.append(scope.declare_local_variable(name, kind))
    return operator.outputs


def _shapes(operator: Any) -> None:
    dtype, _ = _computed(operator)
    batch = operator.inputs[0].get_first_dimension()
    scores = DoubleTensorType if dtype == "float64" else FloatTensorType
    label, scored = operator.outputs
    label.type = Int64TensorType([batch])
    scored.type = scores([batch, len(operator.raw_operator.classes_)])


def _convert(scope: Any, operator: Any, container: Any) -> None:
    linear = operator.raw_operator
    options = container.get_options(linear, {"weights": True, "scale": None})
    dtype, narrow = _computed(operator)
    scale = DEFAULT_SCALE if options["scale"] is None else options["scale"]
    taken = Wire(narrow, scale if narrow == "int8" else None) if narrow else None
    bias = linear.intercept_.astype(dtype) if linear.intercept_.any() else None
    label, scores = (output.full_name for output in operator.outputs)
    inner = {
        role: scope.get_unique_variable_name(name)
        for role, name in (
            ("wide", "wide"),
            ("weights", "W"),
            ("product", "product"),
            ("bias", "b"),
            ("scale", "wire_scale"),
        )
    }
    names = Names(x=operator.inputs[0].full_name, label=label, scores=scores, **inner)
    made = nodes(names, taken, biased=bias is not None, last_of_ties=linear.last_of_ties_)
    for node in made:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        container.add_node(
            node.op_type, list(node.input), list(node.output), name=node.name, **attributes
        )
    container.initializers.extend(small_tensors(names, taken, bias))
    # skl2onnx would serialize W twice to look for an equal one, and cannot beyond 2 GiB.
    if options["weights"]:
        stored = np.ascontiguousarray(exported(linear.coef_, dtype).T)
        container.initializers.append(numpy_helper.from_array(stored, names.weights))
    else:
        container.initializers.append(
            TensorProto(
                name=names.weights, dims=linear.coef_.T.shape, data_type=ELEMENT_TYPES[dtype]
            )
        )


update_registered_converter(
    LinearArgmax,
    ALIAS,
    _shapes,
    _convert,
    parser=_parse,
    options={"weights": [True, False], "scale": None},
)
