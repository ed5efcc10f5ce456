"""Run every execution of a model with one number of rows, for outputs equal bit by bit.

Kernels differ by the number of rows, and sum in another order. With one number there is one kernel.
It could still treat positions among the rows differently, which is tested here.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.batching.batch_buffer import blank
from server.errors import InvalidInput, StartError
from server.loaded_model.group_size import GroupSize
from server.onnx.engine import Engine, TensorSpec

# Stands for a size that the model leaves free.
_SOME = 8


def fixed_size(
    path: Path, engine: Engine, inputs: Sequence[TensorSpec], preferred: GroupSize
) -> GroupSize:
    """The size of all executions: `preferred`, or 1 if a row's position among the rows matters.

    StartError names `path` if the model cannot be run on padding rows.
    """
    rows = preferred.rows
    padding = {spec.name: blank((rows, *_sizes(spec)), spec.dtype) for spec in inputs}
    try:
        _run(engine, padding)
    except InvalidInput as error:
        if all(None not in spec.shape[1:] for spec in inputs):
            raise StartError(
                f"{path}: the model cannot be run on rows of zeros, which pad batches with "
                "--deterministic; expected a model that takes them, or --deterministic off"
            ) from error
    if rows > 1 and _place_matters(engine, inputs, rows):
        return GroupSize(1, f"a row's outputs depend on its place among {rows}")
    return preferred


def _place_matters(engine: Engine, inputs: Sequence[TensorSpec], rows: int) -> bool:
    """Whether the bits of a row's outputs depend on its position, alone and with other rows."""
    row = {spec.name: _made(1, spec, 1) for spec in inputs}
    alike = {name: np.repeat(data, rows, axis=0) for name, data in row.items()}
    crowd = {spec.name: _made(rows, spec, 2) for spec in inputs}
    for name, data in crowd.items():
        data[rows // 2] = row[name][0]
    try:
        outputs = _run(engine, alike)
        among = _run(engine, crowd)
    except InvalidInput:
        return False  # made-up values say nothing about this model
    return any(
        {each.tobytes() for each in output} != {others[rows // 2].tobytes()}
        for output, others in zip(outputs, among, strict=True)
        if not output.dtype.hasobject
    )


def _made(rows: int, spec: TensorSpec, seed: int) -> NDArray[Any]:
    if spec.dtype.kind == "f":
        drawn = np.random.default_rng(seed).standard_normal((rows, *_sizes(spec)))
        return drawn.astype(spec.dtype)
    made = blank((rows, *_sizes(spec)), spec.dtype)
    return made if spec.dtype.hasobject else made + made.dtype.type(seed % 2)


def _run(engine: Engine, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    return engine.run([spec.name for spec in engine.outputs], inputs)


def _sizes(spec: TensorSpec) -> list[int]:
    return [_SOME if size is None else size for size in spec.shape[1:]]
