"""Check inference messages against a model, and turn them into requests."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protos.codec import InferRequest, RequestedOutput
from protos.datatypes import BYTES, DTYPES
from protos.tensors import Parameter, Tensor
from protos.weight import BYTES_ELEMENT_BYTES, MOST_BYTES_ELEMENTS
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
_UNKNOWN = Dependence()
_REMEMBERED_PLANS = 256
# Name, datatype and shape of each input, and the names of the outputs.
_Layout = tuple[tuple[tuple[str, str, tuple[int, ...]], ...], tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class _Plan:
    """What the layout of a message decides, whatever its data: it was checked.

    `inputs`: each with its place in the message. `key`: None where requests share no batch.
    `answer_bytes`: of the outputs, those of an unknown size as 0.
    """

    inputs: tuple[tuple[TensorSpec, int], ...]
    outputs: tuple[str, ...]
    rows: int
    key: object
    answer_bytes: int


class RequestCheck:
    """Checks requests against a model: inputs, outputs, rows, values and parameters."""

    def __init__(
        self,
        model: str,
        inputs: Sequence[TensorSpec],
        optional_inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
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
        self._output_bytes = {spec.name: _known_bytes(spec, max_batch_rows > 0) for spec in outputs}
        self._output_names = tuple(self._output_bytes)
        self._max_batch_rows = max_batch_rows
        self._queue_policy = queue_policy
        self._dependence = dependence
        self._finite_only = finite_only
        # Clients repeat their layouts.
        self._plans: dict[_Layout, _Plan] = {}

    def check(
        self, message: InferRequest, regions: Regions, arrived_ns: int, caller: Caller
    ) -> Request:
        """Turn a message into a request; InvalidInput names the part that does not fit."""
        plan = self._plan(message)
        inputs = {
            spec.name: self._data(spec, message.inputs[at], regions) for spec, at in plan.inputs
        }
        timeout_us, more_follows, timings = _read_parameters(message)
        timeout_us = self._queue_policy.effective_us(timeout_us)
        dependence = self._dependence.of(plan.outputs) if timings else _UNKNOWN
        return Request(
            inputs=inputs,
            outputs=plan.outputs,
            rows=plan.rows,
            size_bytes=message.byte_size,
            answer_bytes=plan.answer_bytes,
            arrived_ns=arrived_ns,
            deadline_ns=caller.deadline_ns,
            queue_deadline_ns=arrived_ns + timeout_us * 1000 if timeout_us else None,
            more_follows=more_follows,
            key=plan.key or object(),
            client=caller.client,
            judged=dependence.judged,
            batch_dependent=dependence.known,
        )

    def _plan(self, message: InferRequest) -> _Plan:
        layout = (
            tuple([(tensor.name, tensor.datatype, tensor.shape) for tensor in message.inputs]),
            tuple([output.name for output in message.outputs]),
        )
        plan = self._plans.get(layout)
        if plan is None:
            plan = self._check_layout(message)
            if len(self._plans) >= _REMEMBERED_PLANS:
                self._plans.clear()
            self._plans[layout] = plan
        return plan

    def _check_layout(self, message: InferRequest) -> _Plan:
        places = self._check_inputs(message.inputs)
        inputs = {spec.name: message.inputs[at] for spec, at in places}
        outputs = self._check_outputs(message.outputs)
        if not self._max_batch_rows:
            return _Plan(places, outputs, 1, None, self._answer_bytes(outputs, 1))
        rows = self._check_rows(inputs)
        shapes = tuple(tensor.shape[1:] for tensor in inputs.values())
        answer_bytes = self._answer_bytes(outputs, rows)
        return _Plan(places, outputs, rows, (shapes, outputs), answer_bytes)

    def _answer_bytes(self, outputs: Sequence[str], rows: int) -> int:
        return rows * sum(self._output_bytes[name] for name in outputs)

    def _check_inputs(self, tensors: Sequence[Tensor]) -> tuple[tuple[TensorSpec, int], ...]:
        """The inputs in the model's order, each with its place in the message."""
        names = [tensor.name for tensor in tensors]
        place = {name: at for at, name in enumerate(names)}
        if (
            len(names) != len(place)
            or not self._needed_inputs <= place.keys() <= self._inputs.keys()
        ):
            raise InvalidInput(
                f"got inputs {sorted(names)}; "
                f"model {self._model!r} takes {self._described_inputs()}"
            )
        places = [(spec, place[name]) for name, spec in self._inputs.items() if name in place]
        for spec, at in places:
            _check_tensor(spec, tensors[at])
        return tuple(places)

    def _data(
        self, spec: TensorSpec, tensor: Tensor, regions: Regions
    ) -> NDArray[Any] | SharedTensor:
        """The data of an input whose layout fits."""
        data: NDArray[Any] | SharedTensor | None = tensor.data
        if data is None:
            what = f"input {spec.name!r}"
            data = regions.tensor(what, tensor.parameters, tensor.shape, spec.dtype)
        if isinstance(data, SharedTensor):
            if self._max_batch_rows:
                return data
            # Without a batch axis there are no rows to gather later.
            data = data.read()
        elif tensor.datatype == BYTES:
            data = _as_strings(f"input {spec.name!r}", data)
        if self._finite_only:
            nan_check.check(spec.name, data)
        return data

    def read_bytes(self, message: InferRequest, regions: Regions) -> int:
        """Memory that `check` takes for inputs in shared memory: those that it reads at once.

        InvalidInput for too many elements; what else is wrong with them `check` says.
        """
        size = 0
        for tensor in message.inputs:
            spec = self._inputs.get(tensor.name)
            if tensor.data is not None or spec is None:
                continue
            if tensor.datatype == BYTES:
                size += BYTES_ELEMENT_BYTES * _checked_elements(tensor)
                size += 4 * regions.copied_bytes(tensor.parameters, spec.dtype)
            elif not self._max_batch_rows:
                size += regions.copied_bytes(tensor.parameters, spec.dtype)
        return size

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

    def _check_rows(self, inputs: Mapping[str, Tensor]) -> int:
        counts = {name: tensor.shape[0] for name, tensor in inputs.items()}
        if len(set(counts.values())) != 1:
            raise InvalidInput(f"inputs disagree on the number of rows: {counts}")
        rows = next(iter(counts.values()))
        if not 1 <= rows <= self._max_batch_rows:
            raise InvalidInput(
                f"got a batch of {rows} rows; "
                f"model {self._model!r} takes 1 to {self._max_batch_rows}"
            )
        return rows


def _known_bytes(spec: TensorSpec, batched: bool) -> int:
    """Bytes of an output, of one row where there are rows; 0 where the graph does not say."""
    shape = spec.shape[1:] if batched else spec.shape
    if spec.dtype.hasobject or None in shape:
        return 0
    return math.prod(size or 0 for size in shape) * spec.dtype.itemsize


def _checked_elements(tensor: Tensor) -> int:
    elements = math.prod(tensor.shape)
    if elements > MOST_BYTES_ELEMENTS:
        raise InvalidInput(
            f"input {tensor.name!r} has {elements} elements of BYTES, expected at most "
            f"{MOST_BYTES_ELEMENTS}"
        )
    return elements


def _check_tensor(spec: TensorSpec, tensor: Tensor) -> None:
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
