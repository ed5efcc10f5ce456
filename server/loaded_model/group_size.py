"""Choose how many rows one execution gathers: the most that fit, unless fewer are clearly faster.

The choice must not depend on other load on the machine while a model is loaded: kernels differ by
size, and with them the last bits of the scores. So one size, derived from the model's sizes alone,
is preferred, and choosing another takes evidence that noise does not produce.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.errors import InvalidInput
from server.onnx.engine import Engine

_CANDIDATES = (16, 32, 64)
# For models that cannot be measured: inputs of free size or of text, or values that they refuse.
_DEFAULT = 32
_MOST_BYTES = 64 * 2**20
# The share of processor time that fewer rows must save, by the minimum of interleaved rounds. Not
# of wall time: other programs interrupt long executions more often than short ones, and so a row in
# groups of 64 has looked nine times as expensive as in 32 (docs/decisions/0007-deterministic.md).
_CLEARLY = 1.5
_ROUNDS = 7
# Fewer rounds may only confirm that no other size is faster than the preferred one.
_LEAST_ROUNDS = 3
# Processor time a thread of the smallest group: larger ones gain nothing on a model this slow, and
# hold requests up.
_SLOW_NS = 200_000_000


@dataclass(frozen=True, slots=True)
class GroupSize:
    """Number of rows, and the reason as text."""

    rows: int
    reason: str


def group_size(engine: Engine, most_rows: int) -> GroupSize:
    """The largest of 16, 32 and 64 rows that fits, or fewer where more cost clearly more a row.

    Never more than `most_rows`, nor than fit into 64 MiB (but at least 1).
    """
    row_bytes = max(1, sum(spec.row_bytes for spec in engine.inputs))
    most_rows = max(1, min(most_rows, _MOST_BYTES // row_bytes))
    candidates = [rows for rows in _CANDIDATES if rows <= most_rows]
    if candidates and engine.on_gpu:
        # A GPU's time is not processor time, and fewer rows are not faster there.
        return GroupSize(candidates[-1], "the most that fit")
    measurable = engine.batches and all(
        None not in spec.shape[1:] and not spec.dtype.hasobject for spec in engine.inputs
    )
    if not candidates or not measurable:
        return GroupSize(min(_DEFAULT, most_rows), "the model cannot be measured")
    try:
        return _measured(engine, candidates)
    except InvalidInput:
        return GroupSize(min(_DEFAULT, most_rows), "the model rejects inputs of ones")


def best_group_rows(row_ns: Mapping[int, float]) -> int:
    """The largest number of rows that none clearly beats, from times a row by rows."""
    least_ns = min(row_ns.values())
    return max(rows for rows, ns in row_ns.items() if ns <= _CLEARLY * least_ns)


def _measured(engine: Engine, candidates: list[int]) -> GroupSize:
    most = candidates[-1]
    # Ones: pages that were never written are all the same page, and read faster.
    inputs = {spec.name: np.ones((most, *_sizes(spec.shape)), spec.dtype) for spec in engine.inputs}
    # The first execution pays for memory.
    _row_ns(engine, inputs, 1)
    if _row_ns(engine, inputs, candidates[0]) * candidates[0] > _SLOW_NS * engine.threads:
        return GroupSize(candidates[0], "the model is slow")
    row_ns = dict.fromkeys(candidates, math.inf)
    for done in range(_ROUNDS):
        if done >= _LEAST_ROUNDS and row_ns[most] == min(row_ns.values()):
            break
        for rows in candidates:
            row_ns[rows] = min(row_ns[rows], _row_ns(engine, inputs, rows))
    best = best_group_rows(row_ns)
    why = "the most that fit" if best == most else "more cost clearly more a row"
    times = ", ".join(f"{ns / 1e3:.1f} us at {rows}" for rows, ns in row_ns.items())
    return GroupSize(best, f"{why}: a row takes {times}, of processor time")


def _row_ns(engine: Engine, inputs: Mapping[str, NDArray[Any]], rows: int) -> float:
    """Processor time a row."""
    outputs = [spec.name for spec in engine.outputs]
    some = {name: data[:rows] for name, data in inputs.items()}
    started_ns = time.process_time_ns()
    engine.run(outputs, some)
    return (time.process_time_ns() - started_ns) / rows


def _sizes(shape: tuple[int | None, ...]) -> list[int]:
    return [size or 0 for size in shape[1:]]
