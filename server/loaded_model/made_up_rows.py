"""Generate rows for test runs of a model."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.onnx.engine import TensorSpec

# Sizes for free axes: small ones, those that images need, and 1.
_SIZES = (6, 32, 64, 224, 1)
_WORDS = ("ash", "birch", "cedar", "elm", "fir", "hazel", "oak", "a b", "")
_SMALL = 8
# Ranges of integers: some graphs reject division by 0, others large indices into small tables.
_RANGES = ((0, None), (0, _SMALL), (1, _SMALL), (0, 2), (0, 1))


@dataclass(frozen=True, slots=True)
class Recipe:
    """Recipe for rows: the size of free axes, and the range of values.

    Integers are at least `least` and below `most`, strings such integers as text. None: integers of
    8 bits take any value, and strings are words.
    """

    size: int
    least: int
    most: int | None

    def shape(self, spec: TensorSpec) -> tuple[int, ...]:
        """Sizes of the axes after the first."""
        return tuple(self.size if size is None else size for size in spec.shape[1:])

    def row_bytes(self, specs: Sequence[TensorSpec]) -> int:
        """Bytes of one row of all of them, at least 1."""
        sizes = (int(np.prod(self.shape(spec))) * spec.dtype.itemsize for spec in specs)
        return max(1, sum(sizes))

    def rows(self, specs: Sequence[TensorSpec], count: int, seed: int) -> dict[str, NDArray[Any]]:
        """`count` rows by input name, the same for the same seed."""
        generator = np.random.default_rng(seed)
        return {
            spec.name: self._values(generator, spec.dtype, (count, *self.shape(spec)))
            for spec in specs
        }

    def _values(
        self, generator: np.random.Generator, dtype: np.dtype[Any], shape: tuple[int, ...]
    ) -> NDArray[Any]:
        if dtype.hasobject:
            words = _WORDS if self.most is None else [str(n) for n in range(self.least, self.most)]
            return np.array(words, np.object_)[generator.integers(0, len(words), shape)]
        if dtype.kind == "b":
            return generator.integers(0, 2, shape).astype(dtype)
        if dtype.kind in "iu":
            if self.most is None and dtype.itemsize == 1:
                limits = np.iinfo(dtype)
                return generator.integers(limits.min, limits.max, shape, dtype, endpoint=True)
            return generator.integers(self.least, self.most or _SMALL, shape, dtype)
        return generator.standard_normal(shape, np.float32).astype(dtype)


def recipes(specs: Sequence[TensorSpec]) -> Iterator[Recipe]:
    """Recipes for rows, the most revealing first."""
    free = any(None in spec.shape[1:] for spec in specs)
    chosen = any(spec.dtype.hasobject or spec.dtype.kind in "iu" for spec in specs)
    for size in _SIZES if free else (1,):
        for least, most in _RANGES if chosen else _RANGES[:1]:
            yield Recipe(size, least, most)


def taken(
    rows: Mapping[str, NDArray[Any]], indices: Sequence[int] | NDArray[Any]
) -> dict[str, NDArray[Any]]:
    """Return these rows, in this order."""
    return {name: np.ascontiguousarray(data[indices]) for name, data in rows.items()}
