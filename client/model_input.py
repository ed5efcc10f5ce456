"""Turn a caller's rows into what a model takes."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from client.errors import UsageError
from protos.quantize import WIRE_DTYPES, to_wire

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class ModelInput:
    """The one input of a model with a batch axis: its name, numpy dtype, and a row's shape.

    `scale`: what an int8 counts, where the server tells it.
    """

    name: str
    dtype: np.dtype[Any]
    row_shape: tuple[int, ...]
    scale: float | None = None

    @property
    def row_bytes(self) -> int:
        """Bytes of one row; free dimensions count as 1."""
        return int(np.prod([max(size, 1) for size in self.row_shape])) * self.dtype.itemsize

    def fit(self, rows: Array) -> Array:
        """Rows in the model's dtype; UsageError when that loses more than precision."""
        fits = rows.ndim == len(self.row_shape) + 1 and all(
            want in (-1, got) for got, want in zip(rows.shape[1:], self.row_shape, strict=True)
        )
        if not fits:
            raise UsageError(
                f"x has shape {list(rows.shape)}; the model takes [n, "
                + ", ".join(map(str, self.row_shape))
                + "]"
            )
        if rows.dtype.kind == "f" and rows.dtype != self.dtype and self.dtype.name in WIRE_DTYPES:
            return self.rounded(rows)
        if not np.can_cast(rows.dtype, self.dtype, "same_kind"):
            raise UsageError(f"x has dtype {rows.dtype}; the model takes {self.dtype}")
        return rows.astype(self.dtype, copy=False)

    def rounded(self, data: Array) -> Array:
        """Floats as the float16 or int8 that the model takes; UsageError without a scale."""
        if self.dtype == np.int8 and self.scale is None:
            raise UsageError(
                f"{self.name} has dtype {data.dtype}; the model takes int8, and the server tells "
                "no wire_scale to round by"
            )
        try:
            return to_wire(data, self.dtype, self.scale)
        except ValueError as error:
            raise UsageError(str(error)) from None
