"""Requests with known answers."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from measure.core.verification import Experiment, truth
from model.export import export
from model.weights import from_seed

MODEL = "linear_argmax"
SMALL = Experiment(classes=64, features=256, dtype="float32", seed=0, examples=1024)
FULL_SIZE = Experiment(classes=64, features=262_144, dtype="float32", seed=0, examples=64)
_MOST_ROWS = 7

Labels = NDArray[np.int64]


class Questions:
    """Slices of an experiment's examples, without near ties."""

    def __init__(self, experiment: Experiment, most_rows: int = _MOST_ROWS) -> None:
        known = truth(experiment)
        clear = ~known.expected.near_ties
        self._x = known.x[clear] if not clear.all() else known.x
        self._labels: Labels = known.expected.labels[clear]
        self._most_rows = most_rows

    def __getitem__(self, number: int) -> tuple[NDArray[Any], Labels]:
        """Rows `[n, features]` of a question by number, and their labels `[n]`."""
        rows = 1 + number % self._most_rows
        # A prime step, so that successive questions differ.
        start = number * 13 % (len(self._x) - rows + 1)
        return self._x[start : start + rows], self._labels[start : start + rows]


def put_model(folder: Path, experiment: Experiment, name: str = MODEL) -> None:
    """Write an experiment's model into a repository."""
    weights = from_seed(experiment.classes, experiment.features, experiment.seed)
    export(folder, name, weights, experiment.dtype, experiment.seed)
