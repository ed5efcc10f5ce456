"""Run a model's warm-up samples before it serves."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from protos.model_config_pb2 import DataType, ModelConfig, ModelWarmup
from server.errors import InvalidInput, LoadError
from server.loaded_model.config_completion import data_type
from server.onnx.engine import Engine, TensorSpec


def warm_up(engine: Engine, config: ModelConfig, inputs: tuple[TensorSpec, ...]) -> None:
    """Run every sample, as often as its count says.

    `inputs`: the tensors of a request. LoadError if a sample does not fit them, or fails.
    """
    outputs = [spec.name for spec in engine.outputs]
    for sample in config.model_warmup:
        made = _inputs(sample, inputs, config.max_batch_size)
        try:
            for _ in range(sample.count or 1):
                engine.run(outputs, made)
        except InvalidInput as error:
            raise LoadError(f"model_warmup {sample.name!r}: {error}") from error


def _inputs(
    sample: ModelWarmup, specs: tuple[TensorSpec, ...], most_rows: int
) -> dict[str, NDArray[Any]]:
    what = f"model_warmup {sample.name!r}"
    names = {spec.name for spec in specs}
    if set(sample.inputs) != names:
        raise LoadError(f"{what} has inputs {sorted(sample.inputs)}, expected {sorted(names)}")
    rows = sample.batch_size or 1
    if rows > (most_rows or 1):
        raise LoadError(f"{what} has batch_size {rows}, expected 1 to {most_rows or 1}")
    axis = (rows,) if most_rows else ()
    made = {}
    for spec in specs:
        source = sample.inputs[spec.name]
        _check(f"{what} input {spec.name!r}", source, spec, axis)
        random = source.WhichOneof("input_data_type") == "random_data"
        made[spec.name] = _values(spec.dtype, (*axis, *source.dims), random=random)
    return made


def _check(what: str, source: ModelWarmup.Input, spec: TensorSpec, axis: tuple[int, ...]) -> None:
    if source.data_type and DataType.Name(source.data_type) != data_type(spec):
        raise LoadError(
            f"{what} has data_type {DataType.Name(source.data_type)}; "
            f"the model takes {data_type(spec)}"
        )
    shape = (*axis, *source.dims)
    fits = len(shape) == len(spec.shape) and all(
        size >= 0 and want in (None, size) for size, want in zip(shape, spec.shape, strict=True)
    )
    if not fits:
        expected = [-1 if size is None else size for size in spec.shape[len(axis) :]]
        raise LoadError(f"{what} has dims {list(source.dims)}; the model takes {expected}")


def _values(dtype: np.dtype[Any], shape: tuple[int, ...], *, random: bool) -> NDArray[Any]:
    if dtype.hasobject:
        return np.full(shape, "", np.object_)
    if not random:
        return np.zeros(shape, dtype)
    generator = np.random.default_rng()
    if dtype.kind == "f":
        return generator.standard_normal(shape).astype(dtype)
    if dtype.kind == "b":
        return generator.integers(0, 2, shape).astype(dtype)
    least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
    return generator.integers(least, most, shape, dtype, endpoint=True)
