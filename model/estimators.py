"""Make one linear model of a fitted scikit-learn classifier or pipeline."""

import warnings
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import (
    LogisticRegression,
    Perceptron,
    RidgeClassifier,
    RidgeClassifierCV,
    SGDClassifier,
)
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MaxAbsScaler, StandardScaler
from sklearn.svm import LinearSVC
from sklearn.utils.validation import check_is_fitted

from model.errors import ModelError
from model.linear_argmax import LinearArgmax

CLASSIFIERS = (
    LinearArgmax,
    LinearDiscriminantAnalysis,
    LinearSVC,
    LogisticRegression,
    Perceptron,
    RidgeClassifier,
    RidgeClassifierCV,
    SGDClassifier,
)
SCALERS = (MaxAbsScaler, StandardScaler)


def load(path: Path) -> Any:
    """Load what joblib.dump has saved; this runs whatever code the file says.

    Raises:
        ModelError: joblib cannot load it.
        OSError: the file cannot be read.
    """
    try:
        return joblib.load(path)
    except OSError:
        raise
    except Exception as error:  # a pickle may raise anything
        raise ModelError(
            f"{path} cannot be loaded ({type(error).__name__}: {error}); "
            "wanted an estimator saved by joblib.dump"
        ) from error


def fold(estimator: Any) -> LinearArgmax:
    """Return the linear model that predicts what the estimator does, up to rounding.

    Scalers before a classifier go into it: with (x - m) / s before w x + b, the weights become
    w / s and the bias b - (w / s) m.

    Raises:
        ModelError: it is not fitted, no linear classifier, multilabel, or a pipeline with a step
            that is no scaler.
    """
    steps = estimator.steps if isinstance(estimator, Pipeline) else [("", estimator)]
    *before, (_, classifier) = steps
    if not isinstance(classifier, CLASSIFIERS):
        raise ModelError(
            f"a {type(classifier).__name__} came; "
            f"wanted {', '.join(sorted(kind.__name__ for kind in CLASSIFIERS))}, "
            "or a pipeline that ends in one"
        )
    center, scale = _scaling(before)
    _fitted(classifier)
    _single_label(classifier)
    coef = classifier.coef_
    w = np.asarray(coef.toarray() if sparse.issparse(coef) else coef, np.float64)
    if before:
        w = w / scale
    moved = w @ center if center.any() else 0.0
    return LinearArgmax.of(w, classifier.intercept_ - moved, classifier.classes_)


def spread(estimator: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what its scalers say of the examples: center and scale, each [features] or [1]."""
    return _scaling(estimator.steps[:-1] if isinstance(estimator, Pipeline) else [])


def predict(estimator: Any, x: NDArray[np.floating]) -> NDArray[Any]:
    """Return what an estimator predicts for examples [n, features], whose columns have no names."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "X does not have valid feature names")
        return np.asarray(estimator.predict(x))


def _scaling(steps: list[tuple[str, Any]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return m and s, so that the steps together make (x - m) / s of x."""
    center, scale = np.zeros(1), np.ones(1)
    for name, step in steps:
        if step is None or step == "passthrough":
            continue
        if not isinstance(step, SCALERS):
            raise ModelError(
                f"step {name!r} is a {type(step).__name__}; "
                f"wanted {' or '.join(kind.__name__ for kind in SCALERS)} before the classifier"
            )
        _fitted(step)
        # ((x - m) / s - mean) / by  =  (x - (m + s mean)) / (s by)
        if isinstance(step, StandardScaler) and step.with_mean:
            center = center + scale * step.mean_
        if step.scale_ is not None:
            scale = scale * step.scale_
    return center, scale


def _fitted(step: Any) -> None:
    try:
        check_is_fitted(step)
    except NotFittedError:
        raise ModelError(f"the {type(step).__name__} is not fitted; wanted a fitted one") from None


def _single_label(classifier: Any) -> None:
    predicted = predict(classifier, np.zeros((1, classifier.n_features_in_)))
    if predicted.ndim != 1:
        raise ModelError(
            f"the {type(classifier).__name__} is multilabel: it predicts {predicted.shape[1]} "
            "labels per example; wanted one"
        )
