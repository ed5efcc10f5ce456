"""Check inference messages against a model, and turn them into requests."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protos.codec import InferRequest, RequestedOutput
from protos.datatypes import BYTES, DTYPES
from protos.tensors import Parameter, Tensor
from server.batching import nan_check
from server.batching.batch_dependence import BatchDependence, Dependence
from server.batching.request import Caller, Request
from server.batching.shared_memory import Regions, SharedTensor
from server.errors import InvalidInput
from server.loaded_model.config_settings import QueuePolicy
from server.onnx.engine import TensorSpec

# Our own request parameters.
TIMINGS = "timings"
MORE_FOLLOWS = "more_follows"
_TRITON_ACCEPTED = frozenset({"triton_enable_empty_final_response"})


class RequestCheck:
    """Checks requests against a model: inputs, outputs, rows, values and parameters."""

    def __init__(
        self,
        model: str,
        inputs: Sequence[TensorSpec],
        optional_inputs: Sequence[TensorSpec],
        output_names: tuple[str, ...],
        max_batch_rows: int,
        queue_policy: QueuePolicy,
        dependence: BatchDependence,
        *,
        finite_only: bool,
    ) -> None:
        """`max_batch_rows`: 0 without a batch axis. `finite_only`: reject NaN and Inf."""
        self._model = model
        self._optional_inputs = optional_inputs
        self._needed_inputs = {spec.name for spec in inputs}
        self._inputs = {spec.name: spec for spec in (*inputs, *optional_inputs)}
        self._output_names = output_names
        self._max_batch_rows = max_batch_rows
        self._queue_policy = queue_policy
        self._dependence = dependence
        self._finite_only = finite_only

    def check(
        self, message: InferRequest, regions: Regions, arrived_ns: int, caller: Caller
    ) -> Request:
        """Turn a message into a request; InvalidInput names the part that does not fit."""
        inputs = self._check_inputs(message.inputs, regions)
        outputs = self._check_outputs(message.outputs)
        rows = self._check_rows(inputs) if self._max_batch_rows else 1
        timeout_us, more_follows, timings = _read_parameters(message)
        timeout_us = self._queue_policy.effective_us(timeout_us)
        shapes = tuple(data.shape[1:] for data in inputs.values())
        dependence = self._dependence.of(outputs) if timings else Dependence()
        return Request(
            inputs=inputs,
            outputs=outputs,
            rows=rows,
            size_bytes=message.byte_size,
            arrived_ns=arrived_ns,
            deadline_ns=caller.deadline_ns,
            queue_deadline_ns=arrived_ns + timeout_us * 1000 if timeout_us else None,
            more_follows=more_follows,
            key=(shapes, outputs) if self._max_batch_rows else object(),
            client=caller.client,
            judged=dependence.judged,
            batch_dependent=dependence.known,
        )

    def _check_inputs(
        self, tensors: Sequence[Tensor], regions: Regions
    ) -> dict[str, NDArray[Any] | SharedTensor]:
        names = [tensor.name for tensor in tensors]
        by_name = {tensor.name: tensor for tensor in tensors}
        if (
            len(names) != len(by_name)
            or not self._needed_inputs <= by_name.keys() <= self._inputs.keys()
        ):
            raise InvalidInput(
                f"got inputs {sorted(names)}; "
                f"model {self._model!r} takes {self._described_inputs()}"
            )
        inputs: dict[str, NDArray[Any] | SharedTensor] = {}
        for name, spec in self._inputs.items():
            if name not in by_name:
                continue
            data = _check_tensor(spec, by_name[name], regions)
            # Without a batch axis there are no rows to gather later.
            if isinstance(data, SharedTensor) and not self._max_batch_rows:
                data = data.read()
            if self._finite_only and not isinstance(data, SharedTensor):
                nan_check.check(name, data)
            inputs[name] = data
        return inputs

    def _described_inputs(self) -> str:
        optional = sorted(spec.name for spec in self._optional_inputs)
        also = f", optionally also {optional}" if optional else ""
        return f"{sorted(self._needed_inputs)}{also}"

    def _check_outputs(self, requested: Sequence[RequestedOutput]) -> tuple[str, ...]:
        if not requested:
            return self._output_names
        names = tuple(output.name for output in requested)
        for name in names:
            if name not in self._output_names:
                raise InvalidInput(
                    f"got requested output {name!r}; "
                    f"model {self._model!r} has {sorted(self._output_names)}"
                )
        if len(set(names)) != len(names):
            raise InvalidInput(f"got requested outputs {list(names)}, expected each name once")
        return names

    def _check_rows(self, inputs: Mapping[str, NDArray[Any] | SharedTensor]) -> int:
        counts = {name: len(data) for name, data in inputs.items()}
        if len(set(counts.values())) != 1:
            raise InvalidInput(f"inputs disagree on the number of rows: {counts}")
        rows = next(iter(counts.values()))
        if not 1 <= rows <= self._max_batch_rows:
            raise InvalidInput(
                f"got a batch of {rows} rows; "
                f"model {self._model!r} takes 1 to {self._max_batch_rows}"
            )
        return rows


def _check_tensor(
    spec: TensorSpec, tensor: Tensor, regions: Regions
) -> NDArray[Any] | SharedTensor:
    what = f"input {spec.name!r}"
    if DTYPES[tensor.datatype] != spec.dtype:
        datatype = next(name for name, dtype in DTYPES.items() if dtype == spec.dtype)
        raise InvalidInput(f"{what} has datatype {tensor.datatype}; the model takes {datatype}")
    fits = len(tensor.shape) == len(spec.shape) and all(
        want is None or got == want for got, want in zip(tensor.shape, spec.shape, strict=True)
    )
    if not fits:
        shape = [-1 if size is None else size for size in spec.shape]
        raise InvalidInput(f"{what} has shape {list(tensor.shape)}; the model takes {shape}")
    data: NDArray[Any] | SharedTensor | None = tensor.data
    if data is None:
        data = regions.tensor(what, tensor.parameters, tensor.shape, spec.dtype)
    if tensor.datatype == BYTES and not isinstance(data, SharedTensor):
        return _as_strings(what, data)
    return data


def _as_strings(what: str, data: NDArray[Any]) -> NDArray[Any]:
    """ONNX strings are UTF-8; the protocol's BYTES need not be."""
    strings = np.empty(math.prod(data.shape), np.object_)
    try:
        strings[:] = [element.decode() for element in data.reshape(-1)]
    except UnicodeDecodeError:
        raise InvalidInput(f"{what} has elements that are not UTF-8") from None
    return strings.reshape(data.shape)


def _read_parameters(message: InferRequest) -> tuple[int, bool, bool]:
    """Queue timeout in microseconds (0: none), and the flags for more_follows and timings."""
    parameters = message.parameters
    if not parameters:
        return 0, False, False
    for name in parameters:
        if name.startswith("triton_") and name not in _TRITON_ACCEPTED:
            raise InvalidInput(f"parameter {name!r} is reserved")
    timeout_us = _typed(parameters.get("timeout", 0), int, "timeout", "microseconds as an integer")
    if timeout_us < 0:
        raise InvalidInput(f"parameter 'timeout' is {timeout_us}, expected 0 or more")
    more = _typed(parameters.get(MORE_FOLLOWS, False), bool, MORE_FOLLOWS, "a boolean")
    timings = _typed(parameters.get(TIMINGS, False), bool, TIMINGS, "a boolean")
    return int(timeout_us), bool(more), bool(timings)


def _typed(value: Parameter, kind: type, name: str, expected: str) -> int:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise InvalidInput(f"parameter {name!r} is {value!r}, expected {expected}")
    return int(value)
