"""Make one linear model of a fitted scikit-learn classifier, pipeline or search."""

import copy
import warnings
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.calibration import CalibratedClassifierCV
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import (
    LogisticRegression,
    Perceptron,
    RidgeClassifier,
    RidgeClassifierCV,
    SGDClassifier,
)
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.svm import SVC, LinearSVC, NuSVC

from model import lfs_pointer
from model.errors import ModelError
from model.from_sklearn.steps import Scaling, check_fitted, scaling, steps_of
from model.linear_argmax import LinearArgmax

CLASSIFIERS = (
    LinearArgmax,
    LinearDiscriminantAnalysis,
    LinearSVC,
    LogisticRegression,
    NuSVC,
    OneVsOneClassifier,
    OneVsRestClassifier,
    Perceptron,
    RidgeClassifier,
    RidgeClassifierCV,
    SGDClassifier,
    SVC,
)


def load(path: Path) -> Any:
    """Load a file saved by joblib.dump; this runs the code in it.

    Raises:
        ModelError: joblib cannot load it.
        OSError: the file cannot be read.
    """
    lfs_pointer.refuse(path)
    try:
        return joblib.load(path)
    except OSError:
        raise
    except Exception as error:  # a pickle may raise anything
        raise ModelError(
            f"{path} cannot be loaded ({type(error).__name__}: {error}), "
            "expected an estimator saved by joblib.dump"
        ) from error


def fold(estimator: Any) -> LinearArgmax:
    """Return the linear model that predicts the same as the estimator, up to rounding.

    Of a search its best estimator counts. Scalers before a classifier go into it: with (x - m) / s
    before w x + b, the weights become w / s and the bias b - (w / s) m.

    Raises:
        ModelError: it is not fitted, not a linear classifier, multilabel, decides by votes, or is a
            pipeline with a step that is not a scaler.
    """
    *before, (_, classifier) = steps_of(estimator)
    _check_kind(classifier)
    center, scale = scaling(before)
    check_fitted(classifier)
    _check_single_label(classifier)
    linear = _folded(classifier)
    w = linear.coef_ / scale if before else linear.coef_
    moved = w @ center if center.any() else 0.0
    return LinearArgmax.of(
        w, linear.intercept_ - moved, linear.classes_, last_of_ties=linear.last_of_ties_
    )


def spread(estimator: Any) -> Scaling:
    """Return center and scale of the examples by its scalers, each [features] or [1]."""
    *before, (_, classifier) = steps_of(estimator)
    center, scale = scaling(before)
    if isinstance(classifier, OneVsOneClassifier | OneVsRestClassifier):
        # Each of them has its own scalers, if any, which saw the same examples, or most of them.
        mean, by = spread(classifier.estimators_[0])
        center, scale = center + scale * mean, scale * by
    return center, scale


def predict(estimator: Any, x: NDArray[np.floating]) -> NDArray[Any]:
    """Return an estimator's predictions for examples [n, features], without column names."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "X does not have valid feature names")
        return np.asarray(estimator.predict(x))


def _check_kind(classifier: Any) -> None:
    if isinstance(classifier, CalibratedClassifierCV):
        raise ModelError(
            "a CalibratedClassifierCV compares calibrated probabilities, which are not linear; "
            "export the classifier that it calibrates"
        )
    if not isinstance(classifier, CLASSIFIERS):
        raise ModelError(
            f"got a {type(classifier).__name__}, "
            f"expected {', '.join(sorted(kind.__name__ for kind in CLASSIFIERS))}, "
            "a pipeline that ends in one, or a search over one"
        )
    name = type(classifier).__name__
    if isinstance(classifier, SVC | NuSVC) and classifier.kernel != "linear":
        raise ModelError(f"the {name} has the kernel {classifier.kernel!r}; expected 'linear'")


def _folded(classifier: Any) -> LinearArgmax:
    """Return the linear model of a fitted classifier of one label."""
    if isinstance(classifier, OneVsRestClassifier):
        return _one_vs_rest(classifier)
    classes = classifier.classes_
    if isinstance(classifier, OneVsOneClassifier | SVC | NuSVC) and len(classes) > 2:
        raise ModelError(
            f"the {type(classifier).__name__} decides between {len(classes)} classes by votes of "
            "pairs, which is not linear; expected two classes, or OneVsRestClassifier around it"
        )
    if isinstance(classifier, OneVsOneClassifier):
        pair = fold(classifier.estimators_[0])
        return LinearArgmax.of(
            pair.coef_, pair.intercept_, classes, last_of_ties=pair.last_of_ties_
        )
    coef = classifier.coef_
    w = np.asarray(coef.toarray() if sparse.issparse(coef) else coef, np.float64)
    # For a score of 0 LIBSVM predicts the second class, the others the first.
    last = isinstance(classifier, SVC | NuSVC) or getattr(classifier, "last_of_ties_", False)
    return LinearArgmax.of(w, classifier.intercept_, classes, last_of_ties=last)


def _one_vs_rest(classifier: OneVsRestClassifier) -> LinearArgmax:
    """Return the model whose scores are those of each class against the others."""
    pairs = [fold(each) for each in classifier.estimators_]
    w = np.stack([pair.coef_[1] - pair.coef_[0] for pair in pairs])
    b = np.array([pair.intercept_[1] - pair.intercept_[0] for pair in pairs])
    last = len(pairs) > 1 and _last_of_ties(classifier, w.shape[1])
    return LinearArgmax.of(w, b, classifier.classes_, last_of_ties=last)


def _last_of_ties(classifier: OneVsRestClassifier, features: int) -> bool:
    """Whether the last of equal scores wins, as it does in older releases of scikit-learn."""
    tied = copy.copy(classifier)
    tied.estimators_ = [classifier.estimators_[0]] * len(classifier.estimators_)
    winner = predict(tied, np.zeros((1, features)))[0]
    return bool(winner != classifier.classes_[0])


def _check_single_label(classifier: Any) -> None:
    labels = 1
    if isinstance(classifier, OneVsRestClassifier):
        labels = len(classifier.estimators_) if classifier.multilabel_ else 1
    elif not isinstance(classifier, OneVsOneClassifier):
        predicted = predict(classifier, np.zeros((1, classifier.n_features_in_)))
        labels = 1 if predicted.ndim == 1 else predicted.shape[1]
    if labels != 1:
        raise ModelError(
            f"the {type(classifier).__name__} is multilabel: it predicts {labels} "
            "labels per example, expected one"
        )
