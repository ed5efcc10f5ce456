"""Rows of a batch, by input, and how many of them fit into a message."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.arrays import Rows
from client.errors import UsageError
from client.model_input import ModelInput
from protos.tensors import Tensor

_LENGTH_BYTES = 4  # before each element of text or bytes


@dataclass(frozen=True, slots=True)
class Batch:
    """Arrays by input name with equal numbers of rows, which are cut into messages."""

    specs: Mapping[str, ModelInput]
    arrays: Mapping[str, NDArray[Any]]

    @classmethod
    def of(cls, specs: Mapping[str, ModelInput], inputs: Mapping[str, Rows]) -> "Batch":
        """The batch of inputs by name; UsageError if they do not fit the model."""
        unknown = [name for name in inputs if name not in specs]
        if unknown or not inputs:
            raise UsageError(f"got inputs {list(inputs)}; the model has inputs {list(specs)}")
        arrays = {name: specs[name].rows(value) for name, value in inputs.items()}
        counts = {name: len(array) for name, array in arrays.items() if specs[name].whole is None}
        if len(set(counts.values())) > 1:
            rows = ", ".join(f"{name!r} has {count}" for name, count in counts.items())
            raise UsageError(f"inputs differ in their number of rows: {rows}")
        return cls(specs, arrays)

    def __len__(self) -> int:
        """Rows; 1 of a batch whose arrays have no batch axis."""
        for name, array in self.arrays.items():
            if self.specs[name].whole is None:
                return len(array)
        return 1

    def row_bytes(self) -> int:
        """Bytes of a row on the wire; 0 of rows that differ in size."""
        if any(self._is_text(name) for name in self.arrays):
            return 0
        return sum(
            math.prod(array.shape[1:]) * self.specs[name].dtype.itemsize
            for name, array in self.arrays.items()
        )

    def end_of(self, start: int, byte_size: int, most_rows: int | None) -> int:
        """Where a message ends that begins at row `start`: after at least one row.

        It has up to `byte_size` bytes and `most_rows` rows; None: any number.
        """
        most = min(len(self) - start, most_rows or len(self))
        if not any(self._is_text(name) for name in self.arrays):
            return start + max(1, min(byte_size // max(self.row_bytes(), 1), most))
        filled = 0
        for row in range(start, start + most):
            filled += sum(self._text_bytes(name, row) for name in self.arrays)
            # A row over the limit is sent alone; the server accepts or rejects it.
            if filled > byte_size and row > start:
                return row
        return start + most

    def tensors(self, part: slice) -> tuple[Tensor, ...]:
        """The rows of a part in the model's dtype; UsageError if they cannot be converted."""
        return tuple(
            Tensor.of(name, self.specs[name].cast(self._rows(name, part), part.start))
            for name in self.arrays
        )

    def _rows(self, name: str, part: slice) -> NDArray[Any]:
        return self.arrays[name] if self.specs[name].whole is not None else self.arrays[name][part]

    def _is_text(self, name: str) -> bool:
        return self.specs[name].dtype == np.object_

    def _text_bytes(self, name: str, row: int) -> int:
        values = self._rows(name, slice(row, row + 1))
        if self.specs[name].dtype != np.object_:
            return int(values.size * self.specs[name].dtype.itemsize)
        return sum(map(_element_bytes, values.reshape(-1)))


def _element_bytes(value: str | bytes) -> int:
    if isinstance(value, str) and not value.isascii():
        return _LENGTH_BYTES + len(value.encode(errors="replace"))
    return _LENGTH_BYTES + len(value)
