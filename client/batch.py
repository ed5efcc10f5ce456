"""Cut a batch of rows into messages that the server takes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from client.arrays import Array, Rows
from client.errors import UsageError
from client.model_input import ModelInput
from protos.tensors import Tensor

_LENGTH_BYTES = 4  # before each element of text or bytes


@dataclass(frozen=True, slots=True)
class MessageLimit:
    """What one message may hold. `rows` 0: all rows of a batch; None: any number."""

    byte_size: int
    rows: int | None


@dataclass(frozen=True, slots=True)
class Batch:
    """Arrays by input name with as many rows each, of which parts become messages."""

    specs: Mapping[str, ModelInput]
    arrays: Mapping[str, Array]

    @classmethod
    def of(cls, specs: Mapping[str, ModelInput], given: Mapping[str, Rows]) -> "Batch":
        """The batch of what was given by input name; UsageError when it does not fit the model."""
        unknown = [name for name in given if name not in specs]
        if unknown or not given:
            raise UsageError(f"got inputs {list(given)}; the model has inputs {list(specs)}")
        arrays = {name: specs[name].rows(value) for name, value in given.items()}
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
        if len(self) == 0:
            return []
        ends = self._ends_in_bytes()
        most_rows = limit.rows or len(self)
        parts = []
        start = 0
        while start < len(self):
            # A row that is over the limit goes alone; the server says what it thinks of that.
            room = ends[start] + limit.byte_size
            stop = int(np.searchsorted(ends, room, side="right")) - 1
            stop = min(max(stop, start + 1), start + most_rows, len(self))
            parts.append(slice(start, stop))
            start = stop
        return parts

    def tensors(self, part: slice) -> tuple[Tensor, ...]:
        """The rows of a part as the model takes them; UsageError where they cannot be."""
        return tuple(
            Tensor.of(name, self.specs[name].cast(self._rows(name, part), part.start))
            for name in self.arrays
        )

    def _rows(self, name: str, part: slice) -> Array:
        return self.arrays[name] if self.specs[name].whole is not None else self.arrays[name][part]

    def _ends_in_bytes(self) -> Array:
        """Bytes of all rows before each row, and of all, int64 `[rows + 1]`."""
        rows = len(self)
        ends = np.zeros(rows + 1, np.int64)
        for name, array in self.arrays.items():
            if self.specs[name].dtype == np.object_:
                sizes = [sum(map(_element_bytes, row)) for row in array.reshape(rows, -1)]
                ends[1:] += np.cumsum(sizes, dtype=np.int64)
            else:
                row_bytes = array.size // rows * self.specs[name].dtype.itemsize
                ends[1:] += row_bytes * np.arange(1, rows + 1)
        return ends


def _element_bytes(value: str | bytes) -> int:
    if isinstance(value, str) and not value.isascii():
        return _LENGTH_BYTES + len(value.encode(errors="replace"))
    return _LENGTH_BYTES + len(value)
