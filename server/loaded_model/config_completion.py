"""Check a model's configuration against its graph, and fill in what it leaves out."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from protos.datatypes import BYTES, datatype_of
from protos.model_config_pb2 import (
    DataType,
    ModelConfig,
    ModelInput,
    ModelInstanceGroup,
    ModelOutput,
)
from server.errors import LoadError
from server.loaded_model.model_config import BACKEND, GRAPH, PLATFORM
from server.onnx.engine import TensorSpec

# The parameter that says whether requests share executions, and why not.
BATCHING = "batching"

Specs = tuple[TensorSpec, ...]
_Tensor = TypeVar("_Tensor", ModelInput, ModelOutput)


def complete(
    config: ModelConfig,
    name: str,
    inputs: Specs,
    outputs: Specs,
    most_rows: int,
    instance_groups: Iterable[ModelInstanceGroup],
    unbatched: str,
) -> ModelConfig:
    """A complete copy; LoadError if it contradicts the graph.

    `most_rows` is the largest batch where the configuration sets none, `instance_groups` are those
    that run, `unbatched` says why requests share no executions, "" where they do.
    """
    done = ModelConfig()
    done.CopyFrom(config)
    done.name, done.platform, done.backend = name, PLATFORM, BACKEND
    if done.version_policy.WhichOneof("policy_choice") is None:
        done.version_policy.latest.num_versions = 1
    done.max_batch_size = 0 if unbatched else config.max_batch_size or most_rows
    if unbatched:
        done.ClearField("dynamic_batching")
    done.parameters[BATCHING].string_value = f"off: {unbatched}" if unbatched else "on"
    batched = done.max_batch_size > 0
    del done.input[:]
    done.input.extend(_completed("input", config.input, inputs, batched, ModelInput))
    del done.output[:]
    done.output.extend(_completed("output", config.output, outputs, batched, ModelOutput))
    del done.instance_group[:]
    done.instance_group.extend(instance_groups)
    done.default_model_filename = config.default_model_filename or GRAPH
    return done


def served(completed: Sequence[ModelInput | ModelOutput], specs: Specs, batched: bool) -> Specs:
    """Tensors that requests are checked against: the graph's, with the configuration's sizes."""
    dims = {tensor.name: _sizes(tensor.dims) for tensor in completed}
    axis = (None,) if batched else ()
    return tuple(replace(spec, shape=(*axis, *dims[spec.name])) for spec in specs)


def data_type(spec: TensorSpec) -> str:
    """The configuration's name for the tensor's datatype."""
    datatype = datatype_of(spec.dtype)
    return f"TYPE_{'STRING' if datatype == BYTES else datatype}"


def _completed(
    kind: str, listed: Sequence[_Tensor], specs: Specs, batched: bool, make: type[_Tensor]
) -> list[_Tensor]:
    by_name = {tensor.name: tensor for tensor in listed}
    unknown = sorted(by_name.keys() - {spec.name for spec in specs})
    if unknown:
        raise LoadError(
            f"got {kind} {', '.join(unknown)}, expected those of the graph: "
            f"{', '.join(spec.name for spec in specs)}"
        )
    return [_tensor(kind, by_name.get(spec.name, make()), spec, batched, make) for spec in specs]


def _tensor(
    kind: str, listed: _Tensor, spec: TensorSpec, batched: bool, make: type[_Tensor]
) -> _Tensor:
    of_graph = data_type(spec)
    if listed.data_type and DataType.Name(listed.data_type) != of_graph:
        raise LoadError(
            f"{kind} {spec.name!r} has data_type {DataType.Name(listed.data_type)}; "
            f"the graph has {of_graph}"
        )
    done = make(name=spec.name, data_type=of_graph)
    done.MergeFrom(listed)
    graph = spec.shape[1 if batched else 0 :]
    if not listed.dims:
        done.dims.extend(-1 if size is None else size for size in graph)
    elif not _fits(_sizes(listed.dims), graph):
        raise LoadError(
            f"{kind} {spec.name!r} has dims {list(listed.dims)}; "
            f"the graph has {[-1 if size is None else size for size in graph]}"
            f"{' beside the batch axis' if batched else ''}"
        )
    return done


def _fits(listed: Sequence[int | None], graph: Sequence[int | None]) -> bool:
    return len(listed) == len(graph) and all(
        size is None or dim == size for dim, size in zip(listed, graph, strict=True)
    )


def _sizes(dims: Sequence[int]) -> tuple[int | None, ...]:
    return tuple(None if size == -1 else size for size in dims)
