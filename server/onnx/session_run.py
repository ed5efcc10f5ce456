"""The ways to run a session: with arrays, through IO binding, with OrtValues."""

import ctypes
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort

from protos.datatypes import BFLOAT16

Array = np.ndarray[Any, np.dtype[Any]]
Run = Callable[[Sequence[str], Mapping[str, Array]], list[Array]]

_ONNX_BFLOAT16 = 16  # of TensorProto.DataType


def way_to_run(session: ort.InferenceSession, dtypes: set[np.dtype[Any]], *, on_gpu: bool) -> Run:
    """Named outputs of a graph, from inputs by name.

    `dtypes`: those of its inputs and outputs.
    """
    if BFLOAT16 in dtypes:
        return functools.partial(_run_values, session)
    if on_gpu and not any(dtype.hasobject for dtype in dtypes):
        return functools.partial(run_bound, session)
    run: Run = session.run
    return run


def run_bound(
    session: ort.InferenceSession, outputs: Sequence[str], inputs: Mapping[str, Array]
) -> list[Array]:
    """Run through IO binding: an input is copied to the device once, when it is bound, and from
    page-locked memory by the device itself."""
    binding = session.io_binding()
    for name, data in inputs.items():
        binding.bind_cpu_input(name, data)
    for name in outputs:
        binding.bind_output(name)
    try:
        session.run_with_iobinding(binding)
    except RuntimeError:
        # After any failure an unbound run tells bad inputs from a broken device.
        unbound: list[Array] = session.run(outputs, inputs)
        return unbound
    arrays: list[Array] = binding.copy_outputs_to_cpu()
    return arrays


def _run_values(
    session: ort.InferenceSession, outputs: Sequence[str], inputs: Mapping[str, Array]
) -> list[Array]:
    """Run with OrtValues: as numpy arrays ONNX Runtime takes and returns no bfloat16."""
    values = {name: _value(data) for name, data in inputs.items()}
    return [_array(value) for value in session.run_with_ort_values(outputs, values)]


def _value(data: Array) -> Any:
    if data.dtype != BFLOAT16:
        return ort.OrtValue.ortvalue_from_numpy(data)
    bits = data.view(np.uint16)
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, _ONNX_BFLOAT16)


def _array(value: Any) -> Array:
    if value.data_type() != "tensor(bfloat16)":
        array: Array = value.numpy()
        return array
    shape = value.shape()
    data = ctypes.string_at(value.data_ptr(), math.prod(shape) * BFLOAT16.itemsize)
    return np.frombuffer(data, BFLOAT16).reshape(shape)
