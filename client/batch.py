"""Cut a batch of rows into messages that the server takes."""

import math
from collections.abc import Mapping, Sequence
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
class MessageLimit:
    """Limits of one message. `rows` 0: all rows of a batch; None: any number."""

    byte_size: int
    rows: int | None


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

    def parts(self, limit: MessageLimit) -> Sequence[slice]:
        """Rows of each message, in order; none of a batch without rows."""
        if limit.rows == 0:
            return [slice(0, len(self))]
        most_rows = max(min(limit.rows or len(self), len(self)), 1)
        if any(self.specs[name].dtype == np.object_ for name in self.arrays):
            return self._parts_of_text(limit.byte_size, most_rows)
        step = min(max(limit.byte_size // max(self._row_bytes(), 1), 1), most_rows)
        starts = range(0, len(self), step)
        return [slice(start, min(start + step, len(self))) for start in starts]

    def tensors(self, part: slice) -> tuple[Tensor, ...]:
        """The rows of a part in the model's dtype; UsageError if they cannot be converted."""
        return tuple(
            Tensor.of(name, self.specs[name].cast(self._rows(name, part), part.start))
            for name in self.arrays
        )

    def _rows(self, name: str, part: slice) -> NDArray[Any]:
        return self.arrays[name] if self.specs[name].whole is not None else self.arrays[name][part]

    def _row_bytes(self) -> int:
        """Bytes of a row on the wire, if all rows have one size."""
        return sum(
            math.prod(array.shape[1:]) * self.specs[name].dtype.itemsize
            for name, array in self.arrays.items()
        )

    def _parts_of_text(self, byte_size: int, most_rows: int) -> Sequence[slice]:
        """As `parts`, for rows of different sizes."""
        parts = []
        start = filled = 0
        for row in range(len(self)):
            row_bytes = sum(self._text_bytes(name, row) for name in self.arrays)
            # A row over the limit is sent alone; the server accepts or rejects it.
            if row > start and (filled + row_bytes > byte_size or row - start == most_rows):
                parts.append(slice(start, row))
                start, filled = row, 0
            filled += row_bytes
        return [*parts, slice(start, len(self))] if len(self) else []

    def _text_bytes(self, name: str, row: int) -> int:
        values = self._rows(name, slice(row, row + 1))
        if self.specs[name].dtype != np.object_:
            return int(values.size * self.specs[name].dtype.itemsize)
        return sum(map(_element_bytes, values.reshape(-1)))


def _element_bytes(value: str | bytes) -> int:
    if isinstance(value, str) and not value.isascii():
        return _LENGTH_BYTES + len(value.encode(errors="replace"))
    return _LENGTH_BYTES + len(value)
