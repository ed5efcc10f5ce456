"""One loaded version of a model: what it takes, and the queue before it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from protos import buffers
from protos.codec import InferRequest, RequestedOutput
from protos.datatypes import BYTES, DTYPES
from protos.model_config_pb2 import ModelConfig
from protos.parameters import Parameter
from protos.tensors import Tensor
from server import (
    argmax_labels,
    config_completion,
    execution,
    finite,
    model_settings,
    row_independence,
)
from server.argmax_labels import ArgmaxLabel
from server.batch_dependence import BatchDependence, Dependence
from server.engine import Engine, TensorSpec
from server.errors import InvalidInput
from server.execution_provider import CPU, ExecutionProvider
from server.fixed_size import fixed_size
from server.group_size import GroupSize, group_size
from server.labels import Labels
from server.model_settings import QueuePolicy
from server.request import Array, Caller, Request
from server.scheduler import Scheduler
from server.shared_memory import Regions, SharedTensor
from server.statistics import Statistics
from server.warmup import warm_up

# Our own request parameters.
TIMINGS = "timings"
MORE_FOLLOWS = "more_follows"
_TRITON_ACCEPTED = frozenset({"triton_enable_empty_final_response"})


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """How a model is run that has no configuration of its own.

    `threads` of one execution, most rows of a request, most rows gathered for one execution (None:
    to be measured), how long a request waits for company, execution provider, whether requests
    with NaN or infinite values are refused, whether executions have one size, labels that are known
    to be an ArgMax of linear scores (None: to be found), why requests share no executions ("": they
    do; None: to be found).
    """

    threads: int
    max_batch_rows: int
    group_rows: int | None = None
    queue_delay_ns: int = 0
    ep: ExecutionProvider = field(default_factory=ExecutionProvider)
    finite_only: bool = False
    deterministic: bool = False
    argmax_labels: tuple[ArgmaxLabel, ...] | None = None
    unbatched: str | None = None


class Model:
    """A version that serves: `request` checks what came, `submit` queues it."""

    def __init__(
        self,
        name: str,
        version: str,
        path: Path,
        config: ModelConfig,
        limits: ModelLimits,
        labels: Labels | None = None,
    ) -> None:
        """Load the graph at `path`, served as `config` says; StartError when that fails.

        `labels`: what the label files say that the configuration names.
        """
        self.name = name
        self.version = version
        self.labels = labels or {}
        self.statistics = Statistics()
        threads = model_settings.threads(config, limits.threads)
        ep = execution.provider(config, limits.ep)
        # The repository, above NAME/VERSION: links may lead to weights anywhere in it.
        repository = path.parents[2]
        self.engine = engine = Engine(
            path, threads, ep, repository, deterministic=limits.deterministic
        )
        set_rows = model_settings.group_rows(config) or limits.group_rows
        # Why requests share no executions, "" where they do.
        self.unbatched = (
            row_independence.doubt(engine, path, config, limits.max_batch_rows, set_rows)
            if limits.unbatched is None
            else limits.unbatched
        )
        self.config = config_completion.complete(
            config,
            name,
            engine.inputs,
            engine.outputs,
            limits.max_batch_rows,
            execution.instance_kind(ep),
            self.unbatched,
        )
        # 0 is the protocol's word for a model without a batch axis.
        self.max_batch_rows = self.config.max_batch_size
        batched = self.max_batch_rows > 0
        self.inputs = config_completion.served(self.config.input, engine.inputs, batched)
        self.outputs = config_completion.served(self.config.output, engine.outputs, batched)
        warm_up(engine, self.config, self.inputs)
        group = GroupSize(set_rows, "set") if set_rows else group_size(engine, self.max_batch_rows)
        fixed = batched and limits.deterministic
        if fixed:
            most = GroupSize(min(group.rows, self.max_batch_rows), group.reason)
            group = fixed_size(path, engine, self.inputs, most)
        self.group_reason = group.reason
        self.batching = model_settings.batching(
            self.config, group.rows, limits.queue_delay_ns, fixed=fixed
        )
        self.execution = model_settings.execution(self.batching, threads) if fixed else {}
        self.argmax_labels = _argmax_labels(path, engine, limits) if batched else ()
        self._dependence = BatchDependence(
            self.outputs, self.argmax_labels, never=fixed or not batched
        )
        self._finite_only = limits.finite_only
        self._queue_policy = QueuePolicy.of(config)
        # Requests that share a batch would have to share these too.
        self.optional_inputs = () if batched else engine.optional_inputs
        self._needed_inputs = {spec.name for spec in self.inputs}
        self._inputs = {spec.name: spec for spec in (*self.inputs, *self.optional_inputs)}
        self._output_names = tuple(spec.name for spec in self.outputs)
        self.output_dtypes = {spec.name: spec.dtype for spec in self.outputs}
        self._scheduler = Scheduler(
            f"{name}:{version}",
            engine,
            self.batching,
            self.statistics,
            batched=batched,
            most_requests=self._queue_policy.most_requests,
            finite_only=limits.finite_only,
            fixed=fixed,
        )
        # Loading leaves copies of the weights behind.
        buffers.give_back()
        self.submit = self._scheduler.submit
        self.hurry = self._scheduler.hurry
        self.cancel = self._scheduler.cancel

    def close(self) -> None:
        """Run what is queued, then let go of the graph; nothing can be submitted any more."""
        self._scheduler.close()
        self.engine.close()

    def request(
        self, message: InferRequest, regions: Regions, arrived_ns: int, caller: Caller
    ) -> Request:
        """Check a message against the model; InvalidInput says what came and what was wanted."""
        inputs = self._check_inputs(message.inputs, regions)
        outputs = self._check_outputs(message.outputs)
        rows = self._check_rows(inputs) if self.max_batch_rows else 1
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
            key=(shapes, outputs) if self.max_batch_rows else object(),
            client=caller.client,
            judged=dependence.judged,
            batch_dependent=dependence.known,
        )

    def _check_inputs(
        self, tensors: Sequence[Tensor], regions: Regions
    ) -> dict[str, Array | SharedTensor]:
        given = [tensor.name for tensor in tensors]
        by_name = {tensor.name: tensor for tensor in tensors}
        if (
            len(given) != len(by_name)
            or not self._needed_inputs <= by_name.keys() <= self._inputs.keys()
        ):
            raise InvalidInput(
                f"inputs {sorted(given)} came; model {self.name!r} takes {self._described_inputs()}"
            )
        inputs: dict[str, Array | SharedTensor] = {}
        for name, spec in self._inputs.items():
            if name not in by_name:
                continue
            data = _check_tensor(spec, by_name[name], regions)
            # Without a batch axis there are no rows to gather later.
            if isinstance(data, SharedTensor) and not self.max_batch_rows:
                data = data.read()
            if self._finite_only and not isinstance(data, SharedTensor):
                finite.check(name, data)
            inputs[name] = data
        return inputs

    def _described_inputs(self) -> str:
        optional = sorted(spec.name for spec in self.optional_inputs)
        also = f", and may be given {optional}" if optional else ""
        return f"{sorted(self._needed_inputs)}{also}"

    def _check_outputs(self, requested: Sequence[RequestedOutput]) -> tuple[str, ...]:
        if not requested:
            return self._output_names
        names = tuple(output.name for output in requested)
        for name in names:
            if name not in self._output_names:
                raise InvalidInput(
                    f"output {name!r} was asked for; "
                    f"model {self.name!r} gives {sorted(self._output_names)}"
                )
        if len(set(names)) != len(names):
            raise InvalidInput(f"outputs {list(names)} were asked for; each may be named once")
        return names

    def _check_rows(self, inputs: Mapping[str, Array | SharedTensor]) -> int:
        counts = {name: len(data) for name, data in inputs.items()}
        if len(set(counts.values())) != 1:
            raise InvalidInput(f"inputs disagree on the number of rows: {counts}")
        rows = next(iter(counts.values()))
        if not 1 <= rows <= self.max_batch_rows:
            raise InvalidInput(
                f"a batch of {rows} rows came; model {self.name!r} takes 1 to {self.max_batch_rows}"
            )
        return rows


def _check_tensor(spec: TensorSpec, tensor: Tensor, regions: Regions) -> Array | SharedTensor:
    what = f"input {spec.name!r}"
    if DTYPES[tensor.datatype] != spec.dtype:
        wanted = next(name for name, dtype in DTYPES.items() if dtype == spec.dtype)
        raise InvalidInput(f"{what} has datatype {tensor.datatype}; the model takes {wanted}")
    fits = len(tensor.shape) == len(spec.shape) and all(
        want is None or got == want for got, want in zip(tensor.shape, spec.shape, strict=True)
    )
    if not fits:
        wanted_shape = [-1 if size is None else size for size in spec.shape]
        raise InvalidInput(f"{what} has shape {list(tensor.shape)}; the model takes {wanted_shape}")
    data: Array | SharedTensor | None = tensor.data
    if data is None:
        data = regions.tensor(what, tensor.parameters, tensor.shape, spec.dtype)
    if tensor.datatype == BYTES and not isinstance(data, SharedTensor):
        return _as_strings(what, data)
    return data


def _as_strings(what: str, data: Array) -> Array:
    """ONNX strings are UTF-8; the protocol's BYTES need not be."""
    strings = np.empty(math.prod(data.shape), np.object_)
    try:
        strings[:] = [element.decode() for element in data.reshape(-1)]
    except UnicodeDecodeError:
        raise InvalidInput(f"{what} has elements that are not UTF-8") from None
    return strings.reshape(data.shape)


def _read_parameters(message: InferRequest) -> tuple[int, bool, bool]:
    """Queue timeout in microseconds (0: none), whether more follows at once, whether timings are
    wanted."""
    parameters = message.parameters
    if not parameters:
        return 0, False, False
    for name in parameters:
        if name.startswith("triton_") and name not in _TRITON_ACCEPTED:
            raise InvalidInput(f"parameter {name!r} is reserved")
    timeout_us = _typed(parameters.get("timeout", 0), int, "timeout", "microseconds as an integer")
    if timeout_us < 0:
        raise InvalidInput(f"parameter 'timeout' is {timeout_us}; it may not be negative")
    more = _typed(parameters.get(MORE_FOLLOWS, False), bool, MORE_FOLLOWS, "a boolean")
    timings = _typed(parameters.get(TIMINGS, False), bool, TIMINGS, "a boolean")
    return int(timeout_us), bool(more), bool(timings)


def _argmax_labels(path: Path, engine: Engine, limits: ModelLimits) -> tuple[ArgmaxLabel, ...]:
    """Labels that an answer can be judged by; none where other than the CPU's arithmetic counts."""
    if limits.argmax_labels is not None:
        return limits.argmax_labels
    kinds = {spec.dtype.kind for spec in engine.outputs}
    if engine.provider != CPU or not kinds >= {"i", "f"}:
        return ()
    return argmax_labels.find(path)


def _typed(value: Parameter, kind: type, name: str, wanted: str) -> int:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise InvalidInput(f"parameter {name!r} is {value!r}; wanted {wanted}")
    return int(value)
