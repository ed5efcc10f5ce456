"""Make the experiment's examples again from its seed, with the labels they should get."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from client.errors import UsageError
from model.errors import ModelError
from model.examples import standard_normal
from model.reference import Expected, expect
from model.weights import exported, from_seed, sha256

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Experiment:
    """W [classes, features] and X [examples, features], standard normal, in one dtype."""

    classes: int
    features: int
    dtype: str
    seed: int
    examples: int = 1024


@dataclass(frozen=True, slots=True)
class Truth:
    """Examples `x`, what the float64 reference says of them, and the hash of the weights."""

    x: Array
    expected: Expected
    weights_sha256: str


@dataclass(frozen=True, slots=True)
class Check:
    """How many labels of a batch are wrong, near ties, or different from the reference's."""

    wrong_labels: int
    near_ties: int
    disagreements: int


def truth(experiment: Experiment) -> Truth:
    """Compute what an experiment should give; UsageError when its settings make no sense."""
    try:
        weights = exported(
            from_seed(experiment.classes, experiment.features, experiment.seed), experiment.dtype
        )
        x = standard_normal(
            experiment.examples, experiment.features, experiment.seed, experiment.dtype
        )
        return Truth(x, expect(weights, x, experiment.dtype), sha256(weights))
    except ModelError as error:
        raise UsageError(str(error)) from None


def check(truth: Truth, start: int, labels: Array) -> Check:
    """Hold labels of the examples from `start` on against the reference."""
    expected = truth.expected.rows(slice(start, start + len(labels)))
    return Check(
        wrong_labels=int(expected.wrong(labels).sum()),
        near_ties=int(expected.near_ties.sum()),
        disagreements=int((labels != expected.labels).sum()),
    )
