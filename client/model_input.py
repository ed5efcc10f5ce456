"""Convert a caller's rows to a model's input."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client import arrays
from client.arrays import Rows
from client.errors import UsageError
from protos.quantize import WIRE_DTYPES, to_wire


@dataclass(frozen=True, slots=True)
class ModelInput:
    """One input of a model: its name, its numpy dtype, and the shape of a row.

    `scale`: the value of one int8 unit, if the metadata have it. `whole`: the whole shape, for an
    input without a batch axis. Sizes of -1 are free.
    """

    name: str
    dtype: np.dtype[Any]
    row_shape: tuple[int, ...]
    scale: float | None = None
    whole: tuple[int, ...] | None = None

    @property
    def row_bytes(self) -> int:
        """Bytes of one row; free dimensions count as 1."""
        return int(np.prod([max(size, 1) for size in self.row_shape])) * self.dtype.itemsize

    def rows(self, value: Rows) -> NDArray[Any]:
        """Rows of any dtype, as an array of the right shape; a single row gets the batch axis.

        UsageError for another shape, and for a value that is not an array.
        """
        array = arrays.as_array(value, self._what)
        shape = (-1, *self.row_shape) if self.whole is None else self.whole
        if array.ndim == len(shape) - 1 and shape[0] in (-1, 1):
            array = array[np.newaxis]
        fits = array.ndim == len(shape) and all(
            want in (-1, got) for got, want in zip(array.shape, shape, strict=True)
        )
        if not fits:
            sizes = ["n" if self.whole is None else str(shape[0]), *map(str, shape[1:])]
            raise UsageError(
                f"{self._what} has shape {list(np.shape(array))}; "
                f"the model takes [{', '.join(sizes)}]"
            )
        if self.dtype == np.object_:
            arrays.check_text(array, self._what)
        return array

    def fit(self, value: Rows) -> NDArray[Any]:
        """Rows in the model's dtype and shape; UsageError if that loses more than precision."""
        return self.cast(self.rows(value))

    def cast(self, array: NDArray[Any], first_row: int = 0) -> NDArray[Any]:
        """An array in the model's dtype, by `arrays.cast`, or rounded to float16 or int8.

        `first_row` is the number of its first row, for messages about an element.
        """
        if array.dtype == self.dtype:
            return array
        counts_units = self.dtype == np.int8 and self.scale is not None
        if counts_units or (array.dtype.kind == "f" and self.dtype.name in WIRE_DTYPES):
            return self._rounded(array, first_row)
        return arrays.cast(array, self.dtype, self._what, first_row)

    def of_any_shape(self, value: Rows) -> NDArray[Any]:
        """An array in the model's dtype; the server checks names and shapes."""
        return self.cast(arrays.as_array(value, self._what))

    @property
    def _what(self) -> str:
        return f"input {self.name!r}"

    def _rounded(self, array: NDArray[Any], first_row: int) -> NDArray[Any]:
        """Numbers as the model's float16 or int8; UsageError without a scale."""
        if self.dtype == np.int8 and self.scale is None:
            raise UsageError(
                f"{self._what} has dtype {array.dtype}; the model takes int8; the server returns "
                "no wire_scale to round by"
            )
        if array.dtype.kind != "f":
            array = arrays.cast(array, np.dtype(np.float32), self._what, first_row)
        try:
            return to_wire(array, self.dtype, self.scale)
        except ValueError as error:
            raise UsageError(f"{self._what}: {self._fault(array, first_row)}{error}") from None

    def _fault(self, array: NDArray[Any], first_row: int) -> str:
        """The element that could not be rounded."""
        with np.errstate(over="ignore", under="ignore"):
            narrow = array.astype(np.float16)
        bad = np.isnan(array) if self.dtype == np.int8 else np.isinf(narrow) & np.isfinite(array)
        places = np.flatnonzero(bad)
        if not places.size:
            return ""
        at = int(places[0])
        return f"{arrays.element(array, at, first_row)} is {array.reshape(-1)[at]}: "
