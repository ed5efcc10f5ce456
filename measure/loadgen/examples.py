"""LoadGen's query sample library: examples, in memory only while LoadGen needs them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from measure.core.verification import Experiment, examples

# LoadGen loads and unloads as many examples at a time as this holds.
MOST_LOADED_BYTES = 2**30


class LoadedExamples:
    """Rows of X by their indices; LoadGen's query sample library."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._places: dict[int, int] = {}
        self._x: NDArray[Any] = np.empty((0, experiment.features), experiment.dtype)

    @property
    def most_loaded(self) -> int:
        """Most examples in memory at once, at least one."""
        fitting = MOST_LOADED_BYTES // self._experiment.row_bytes
        return max(1, min(self._experiment.examples, fitting))

    def load(self, indices: Sequence[int]) -> None:
        """Draw these examples; LoadGen unloads the previous ones first."""
        self._x = examples(self._experiment, indices)
        self._places = {index: place for place, index in enumerate(indices)}

    def unload(self, indices: Sequence[int]) -> None:
        """Free the loaded examples."""
        self._places = {}
        self._x = self._x[:0].copy()

    def rows(self, indices: Sequence[int]) -> NDArray[Any]:
        """Rows `[n, features]` of loaded examples; a single one is not copied."""
        places = [self._places[index] for index in indices]
        if len(places) == 1:
            return self._x[places[0] : places[0] + 1]
        return self._x.take(places, axis=0)
