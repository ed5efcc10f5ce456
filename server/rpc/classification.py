"""Serve the classification extension: the strongest classes of an output, as text.

An output requested with the parameter `classification` K is sent as BYTES, elements
`VALUE:INDEX` or, where the class has a label, `VALUE:INDEX:LABEL`. Values are as C++'s
std::to_string writes them, which is what Triton does, so that its clients parse both alike.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protos.codec import RequestedOutput
from protos.datatypes import BFLOAT16
from server.errors import InvalidInput

PARAMETER = "classification"
# A text takes about a microsecond and up to a kilobyte.
_MOST_ELEMENTS = 2**20


def counts(
    requested: Sequence[RequestedOutput], dtypes: Mapping[str, np.dtype[Any]]
) -> dict[str, int]:
    """Requested number of classes by output; InvalidInput where an output has no classes.

    `dtypes`: those of the model's outputs.
    """
    counts = {}
    for output in requested:
        count = output.parameters.get(PARAMETER)
        if count is not None:
            _check(output, count, dtypes[output.name])
            counts[output.name] = int(count)
    return counts


def strongest(
    what: str, values: NDArray[Any], count: int, labels: Sequence[str], *, batched: bool
) -> NDArray[Any]:
    """The highest values of each row, highest first, equal ones by index, NaN last: texts.

    An object array of bytes, [rows, min(count, elements of a row)] of a batch, otherwise
    [min(count, elements)]. InvalidInput, which names `what`, when that is too much text.
    """
    rows = len(values) if batched else 1
    if values.dtype in (BFLOAT16, np.float16):
        values = values.astype(np.float32)
    width = math.prod(values.shape[1:] if batched else values.shape)
    table, kept = values.reshape(rows, width), min(count, width)
    if rows * kept > _MOST_ELEMENTS:
        raise InvalidInput(
            f"{what} has {rows * kept} classes to write as text, expected at most {_MOST_ELEMENTS}"
        )
    texts = np.empty((rows, kept), np.object_)
    labelled = len(labels)
    for row, written in zip(table, texts, strict=True):
        indices = _highest(row, kept)
        written[:] = [
            _text(value, index, labels[index] if index < labelled else "")
            for value, index in zip(row[indices].tolist(), indices.tolist(), strict=True)
        ]
    return texts if batched else texts.reshape(kept)


def _check(output: RequestedOutput, count: object, dtype: np.dtype[Any]) -> None:
    what = f"output {output.name!r}"
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise InvalidInput(
            f"{what} has parameter {PARAMETER!r} {count!r}, expected an integer of at least 1"
        )
    if dtype.kind not in "iuf" and dtype != BFLOAT16:
        raise InvalidInput(f"{what} is no tensor of numbers, expected one for {PARAMETER!r}")
    if "shared_memory_region" in output.parameters:
        raise InvalidInput(
            f"{what} has parameters {PARAMETER!r} and 'shared_memory_region', expected one of them"
        )


def _highest(row: NDArray[Any], count: int) -> NDArray[Any]:
    """Indices of the `count` highest values."""
    if count == 0:
        return np.empty(0, np.intp)
    # The order turned around, without the overflow that a minus has for integers.
    key = -row if row.dtype.kind == "f" else ~row
    # Sorting whole rows of many classes for a few of them would take most of the time.
    last = np.partition(key, count - 1)[count - 1]
    candidates = np.flatnonzero(~(key > last))
    return candidates[np.argsort(key[candidates], kind="stable")[:count]]


def _text(value: float, index: int, label: str) -> bytes:
    number = f"{value:f}" if isinstance(value, float) else str(value)
    return (f"{number}:{index}:{label}" if label else f"{number}:{index}").encode()
