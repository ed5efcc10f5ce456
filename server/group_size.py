"""Choose how many rows one execution gathers, by measuring the model."""

import math
import time
from collections.abc import Mapping

import numpy as np

from server.engine import Engine
from server.errors import InvalidInput

_CANDIDATES = (16, 32, 64)
# For models that cannot be measured: inputs of free size or of text, or values that they refuse.
_DEFAULT = 32
_REPEATS = 3
# Fewer executions mean fewer hand-overs between threads, so the largest of about equals is best.
_ABOUT_EQUAL = 1.05
_MOST_BYTES = 64 * 2**20
# A model this slow gains nothing from larger groups that could be told from noise.
_SLOW_NS = 200_000_000


def measured_group_rows(engine: Engine, most_rows: int) -> int:
    """The largest of 16, 32 and 64 rows that costs about the least time a row.

    Never more than `most_rows`, nor than fit into 64 MiB (but at least 1).
    """
    row_bytes = max(1, sum(spec.row_bytes for spec in engine.inputs))
    most_rows = max(1, min(most_rows, _MOST_BYTES // row_bytes))
    candidates = [rows for rows in _CANDIDATES if rows <= most_rows]
    measurable = engine.batches and all(
        None not in spec.shape[1:] and not spec.dtype.hasobject for spec in engine.inputs
    )
    if not candidates or not measurable:
        return min(_DEFAULT, most_rows)
    # Of ones: pages that were never written are all the same page, and read faster.
    inputs = {
        spec.name: np.ones((candidates[-1], *_sizes(spec.shape)), spec.dtype)
        for spec in engine.inputs
    }
    outputs = [spec.name for spec in engine.outputs]
    row_ns: dict[int, float] = {}
    try:
        # The first execution pays for memory.
        engine.run(outputs, {name: data[:1] for name, data in inputs.items()})
        for rows in candidates:
            some = {name: data[:rows] for name, data in inputs.items()}
            row_ns[rows] = math.inf
            for _ in range(_REPEATS):
                started_ns = time.perf_counter_ns()
                engine.run(outputs, some)
                taken_ns = time.perf_counter_ns() - started_ns
                row_ns[rows] = min(row_ns[rows], taken_ns / rows)
                if taken_ns > _SLOW_NS:
                    break
            if taken_ns > _SLOW_NS:
                break
    except InvalidInput:
        return min(_DEFAULT, most_rows)
    return best_group_rows(row_ns)


def best_group_rows(row_ns: Mapping[int, float]) -> int:
    """The largest number of rows that costs about the least time a row, from times by rows."""
    least_ns = min(row_ns.values())
    return max(rows for rows, ns in row_ns.items() if ns <= _ABOUT_EQUAL * least_ns)


def _sizes(shape: tuple[int | None, ...]) -> list[int]:
    return [size or 0 for size in shape[1:]]
