"""Turn a caller's rows into what a model takes."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from client import arrays
from client.arrays import Array, Rows
from client.errors import UsageError
from protos.quantize import WIRE_DTYPES, to_wire


@dataclass(frozen=True, slots=True)
class ModelInput:
    """One input of a model: its name, its numpy dtype, and the shape of a row.

    `scale`: what an int8 counts, where the server tells it. `whole`: the shape of all of it, for
    an input without a batch axis. Sizes of -1 are free.
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

    def rows(self, given: Rows) -> Array:
        """Rows of any dtype, as an array whose shape fits; one row alone gets the batch axis.

        UsageError for another shape, and for what is no array.
        """
        array = arrays.as_array(given, self._what)
        wanted = (-1, *self.row_shape) if self.whole is None else self.whole
        if array.ndim == len(wanted) - 1 and wanted[0] in (-1, 1):
            array = array[np.newaxis]
        fits = array.ndim == len(wanted) and all(
            want in (-1, got) for got, want in zip(array.shape, wanted, strict=True)
        )
        if not fits:
            sizes = ["n" if self.whole is None else str(wanted[0]), *map(str, wanted[1:])]
            raise UsageError(
                f"{self._what} has shape {list(np.shape(array))}; "
                f"the model takes [{', '.join(sizes)}]"
            )
        if self.dtype == np.object_:
            arrays.check_text(array, self._what)
        return array

    def fit(self, given: Rows) -> Array:
        """Rows in the model's dtype and shape; UsageError when that loses more than precision."""
        return self.cast(self.rows(given))

    def cast(self, array: Array, first_row: int = 0) -> Array:
        """An array in the model's dtype, as `arrays.cast` has it, or rounded to float16 or int8.

        `first_row` is the number of its first row, for messages about an element.
        """
        if array.dtype == self.dtype:
            return array
        counts_units = self.dtype == np.int8 and self.scale is not None
        if counts_units or (array.dtype.kind == "f" and self.dtype.name in WIRE_DTYPES):
            return self._rounded(array, first_row)
        return arrays.cast(array, self.dtype, self._what, first_row)

    def of_any_shape(self, given: Rows) -> Array:
        """What stands for an array, in the model's dtype; the server judges names and shapes."""
        return self.cast(arrays.as_array(given, self._what))

    @property
    def _what(self) -> str:
        return f"input {self.name!r}"

    def _rounded(self, array: Array, first_row: int) -> Array:
        """Numbers as the float16 or int8 that the model takes; UsageError without a scale."""
        if self.dtype == np.int8 and self.scale is None:
            raise UsageError(
                f"{self._what} has dtype {array.dtype}; the model takes int8, and the server tells "
                "no wire_scale to round by"
            )
        if array.dtype.kind != "f":
            array = arrays.cast(array, np.dtype(np.float32), self._what, first_row)
        try:
            return to_wire(array, self.dtype, self.scale)
        except ValueError as error:
            raise UsageError(f"{self._what}: {self._fault(array, first_row)}{error}") from None

    def _fault(self, array: Array, first_row: int) -> str:
        """The element that could not be rounded."""
        with np.errstate(over="ignore", under="ignore"):
            narrow = array.astype(np.float16)
        bad = np.isnan(array) if self.dtype == np.int8 else np.isinf(narrow) & np.isfinite(array)
        places = np.flatnonzero(bad)
        if not places.size:
            return ""
        at = int(places[0])
        return f"{arrays.element(array, at, first_row)} is {array.reshape(-1)[at]}: "
