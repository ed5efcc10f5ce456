"""Take pipelines and searches apart, and compute the effect of their scalers."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator

# The common base class of scikit-learn's searches has no public name.
from sklearn.model_selection._search import BaseSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    RobustScaler,
    StandardScaler,
)
from sklearn.utils.validation import check_is_fitted

from model.errors import ModelError

SCALERS = (MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler)

Step = tuple[str, Any]
Scaling = tuple[NDArray[np.float64], NDArray[np.float64]]


def steps_of(estimator: Any, name: str = "") -> list[Step]:
    """Return the steps of an estimator, also of nested pipelines and of searches' best estimators.

    Raises:
        ModelError: a search without a best estimator.
    """
    if isinstance(estimator, BaseSearchCV):
        if not hasattr(estimator, "best_estimator_"):
            raise ModelError(
                f"the {type(estimator).__name__} has no best_estimator_; expected a search that "
                "is fitted, with refit"
            )
        return steps_of(estimator.best_estimator_, name)
    if isinstance(estimator, FrozenEstimator):
        return steps_of(estimator.estimator, name)
    if isinstance(estimator, Pipeline):
        # As scikit-learn names the parameters of such steps.
        prefix = f"{name}__" if name else ""
        return [
            step
            for inner_name, inner in estimator.steps
            for step in steps_of(inner, prefix + inner_name)
        ]
    return [(name, estimator)]


def scaling(steps: list[Step]) -> Scaling:
    """Return m and s, each [features] or [1], so that all steps together compute (x - m) / s.

    Raises:
        ModelError: a step is not a scaler, is not fitted, or clips.
    """
    center, scale = np.zeros(1), np.ones(1)
    for name, step in steps:
        if _changes_nothing(step):
            continue
        if isinstance(step, FunctionTransformer):
            raise ModelError(f"step {name!r} is a FunctionTransformer with a func; expected None")
        if not isinstance(step, SCALERS):
            raise ModelError(
                f"step {name!r} is a {type(step).__name__}, "
                f"expected {' or '.join(kind.__name__ for kind in SCALERS)} before the classifier"
            )
        if getattr(step, "clip", False):
            raise ModelError(
                f"step {name!r} is a {type(step).__name__} with clip=True, which is not linear; "
                "expected clip=False"
            )
        check_fitted(step)
        # ((x - m) / s - mean) / by  =  (x - (m + s mean)) / (s by)
        mean, by = _of_scaler(step)
        center, scale = center + scale * mean, scale * by
    return center, scale


def check_fitted(step: Any) -> None:
    """Raise ModelError unless an estimator is fitted."""
    try:
        check_is_fitted(step)
    except NotFittedError:
        raise ModelError(f"got a {type(step).__name__} that is not fitted") from None


def _changes_nothing(step: Any) -> bool:
    if step is None or isinstance(step, str):
        return step in (None, "passthrough")
    return isinstance(step, FunctionTransformer) and step.func is None


def _of_scaler(step: Any) -> Scaling:
    """Return one scaler's offset and divisor."""
    if isinstance(step, MinMaxScaler):
        # It computes x scale_ + min_.
        return -step.min_ / step.scale_, 1 / step.scale_
    mean = None
    if isinstance(step, StandardScaler) and step.with_mean:
        mean = step.mean_
    if isinstance(step, RobustScaler):
        mean = step.center_
    return (
        np.zeros(1) if mean is None else mean,
        np.ones(1) if step.scale_ is None else step.scale_,
    )
