"""Read a model's configuration, and reject unsupported fields.

The format is Triton's ModelConfig. An unsupported field that would change answers is an error that
names it; one that only hints at speed or labels things is a warning.
"""

import re
from collections.abc import Iterator, Sequence

from google.protobuf import json_format, text_format

from protos.model_config_pb2 import (
    ModelConfig,
    ModelInput,
    ModelInstanceGroup,
    ModelOutput,
    ModelQueuePolicy,
)
from server.errors import LoadError
from server.loaded_model import config_session

PLATFORM = "onnxruntime_onnx"
BACKEND = "onnxruntime"
# The file of a version that names no other.
GRAPH = "model.onnx"

_NO_FIELD = re.compile(r'Message type "inference\.(\S+)" has no field named "(\S+)"')


def parse_text(text: str) -> ModelConfig:
    """Read protobuf's text format; LoadError names the line and the fault."""
    try:
        return text_format.Parse(text, ModelConfig())
    except text_format.ParseError as error:
        where = "" if error.GetLine() is None else f"line {error.GetLine()}: "
        raise LoadError(where + _reason(re.sub(r"^\d+:\d+ : ", "", str(error)))) from None


def parse_json(text: str) -> ModelConfig:
    """Read the JSON form; LoadError names the fault."""
    try:
        # An editor may have saved the file with a byte order mark.
        return json_format.Parse(text.removeprefix("\ufeff"), ModelConfig())
    except json_format.ParseError as error:
        raise LoadError(_reason(str(error))) from None


def check(config: ModelConfig, name: str) -> list[str]:
    """Texts about fields without effect; LoadError names the first unsupported field."""
    _check_identity(config, name)
    for refuse in (_check_tensors, _check_scheduling, _check_warmup, _check_rest):
        refuse(config)
    return list(_without_effect(config))


def wanted_versions(config: ModelConfig, present: Sequence[int]) -> list[int]:
    """The versions, of `present` in descending order, that the policy serves."""
    policy = config.version_policy
    choice = policy.WhichOneof("policy_choice")
    if choice == "all":
        return list(present)
    if choice == "specific":
        return [version for version in present if version in policy.specific.versions]
    return list(present[: policy.latest.num_versions or 1])


def _reason(text: str) -> str:
    first = text.splitlines()[0]
    match = _NO_FIELD.match(first)
    # The field may be misspelled, or one of Triton's that is not supported; one text covers both.
    return f"{match[1]} has no supported field {match[2]!r}" if match else first


def _check_identity(config: ModelConfig, name: str) -> None:
    for field, wanted in (("name", name), ("platform", PLATFORM), ("backend", BACKEND)):
        value = getattr(config, field)
        if value not in ("", wanted):
            raise LoadError(f"{field} is {value!r}, expected {wanted!r}")
    if config.runtime:
        raise LoadError(f"runtime is {config.runtime!r}; a backend's library cannot be chosen here")


def _check_tensors(config: ModelConfig) -> None:
    if config.max_batch_size < 0:
        raise LoadError(f"max_batch_size is {config.max_batch_size}, expected 0 or more")
    kinds: tuple[tuple[str, Sequence[ModelInput | ModelOutput]], ...] = (
        ("input", config.input),
        ("output", config.output),
    )
    for kind, tensors in kinds:
        names = [tensor.name for tensor in tensors]
        if len(set(names)) != len(names) or "" in names:
            raise LoadError(f"{kind} names are {names}, expected each once")
        for tensor in tensors:
            if any(size < -1 or size == 0 for size in tensor.dims):
                raise LoadError(
                    f"{kind} {tensor.name!r} has dims {list(tensor.dims)}, "
                    "expected sizes of at least 1, or -1 for any"
                )
    for tensor in config.input:
        if tensor.optional:
            raise LoadError(f"input {tensor.name!r} is optional; this server requires every input")


def _check_scheduling(config: ModelConfig) -> None:
    batching = config.dynamic_batching
    policy = batching.default_queue_policy
    if policy.timeout_action == ModelQueuePolicy.DELAY:
        raise LoadError("timeout_action is DELAY, expected REJECT")
    for size in batching.preferred_batch_size:
        if size < 1 or 0 < config.max_batch_size < size:
            raise LoadError(f"preferred_batch_size has {size}, expected 1 to max_batch_size")


def _check_warmup(config: ModelConfig) -> None:
    for sample in config.model_warmup:
        for tensor, source in sample.inputs.items():
            what = f"model_warmup {sample.name!r} input {tensor!r}"
            if source.WhichOneof("input_data_type") == "input_data_file":
                raise LoadError(f"{what} has input_data_file, expected zero_data or random_data")
            if source.WhichOneof("input_data_type") is None:
                raise LoadError(f"{what} has no data, expected zero_data or random_data")


def _check_rest(config: ModelConfig) -> None:
    if config.response_cache.enable:
        raise LoadError("response_cache.enable is true; this server does not cache answers")
    if config.model_transaction_policy.decoupled:
        raise LoadError(
            "model_transaction_policy.decoupled is true; this server sends one answer per request"
        )


def _without_effect(config: ModelConfig) -> Iterator[str]:
    kinds = {group.kind for group in config.instance_group}
    if ModelInstanceGroup.KIND_MODEL in kinds:
        yield "instance_group has KIND_MODEL, which counts as KIND_AUTO: --ep says where it runs"
    accelerators = config.optimization.execution_accelerators
    if kinds == {ModelInstanceGroup.KIND_CPU} and accelerators.gpu_execution_accelerator:
        yield "gpu_execution_accelerator is ignored: every instance_group is KIND_CPU"
    if len(set(config.dynamic_batching.preferred_batch_size)) > 1:
        yield "preferred_batch_size has several sizes: the largest counts"
    for field, _ in config.optimization.ListFields():
        if field.name not in ("execution_accelerators", "graph"):
            yield f"optimization.{field.name} is ignored"
    if config.metric_tags:
        yield "metric_tags is ignored: there are no metrics per model"
    for tensor in config.input:
        if tensor.format:
            yield f"input {tensor.name!r} has a format, which is ignored: tensors are not converted"
    yield from config_session.without_effect(config)
