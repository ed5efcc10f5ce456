"""Choose the execution providers of a model by its configuration."""

from collections.abc import Iterator

from protos.model_config_pb2 import ModelConfig, ModelInstanceGroup
from server.errors import LoadError
from server.onnx import execution_provider
from server.onnx.execution_provider import CPU, CUDA, GPU, OPENVINO, ExecutionProvider

_OF_KIND = {
    "gpu_execution_accelerator": GPU,
    "cpu_execution_accelerator": (OPENVINO, CPU),
}


def providers(
    config: ModelConfig, group: ModelInstanceGroup, default: ExecutionProvider
) -> list[ExecutionProvider]:
    """The provider that the configuration names for a group of instances, else `default`.

    One for each GPU where the group lists several. LoadError for an unknown provider, for two at
    once, and for one that does not fit the group's kind.
    """
    accelerators = list(_accelerators(config))
    if len(accelerators) > 1:
        names = ", ".join(each.short_name for each in accelerators)
        raise LoadError(f"execution_accelerators names {names}, expected one")
    chosen = accelerators[0] if accelerators else None
    if group.kind == ModelInstanceGroup.KIND_CPU:
        if group.gpus:
            raise LoadError(f"instance_group has gpus {list(group.gpus)} beside KIND_CPU")
        usual = chosen or default
        return [ExecutionProvider(CPU) if usual.name in GPU else usual]
    if group.kind != ModelInstanceGroup.KIND_GPU and not group.gpus:
        return [chosen or default]
    if chosen is None:
        chosen = default if default.name in GPU else ExecutionProvider(CUDA)
    if chosen.name not in GPU:
        raise LoadError(
            f"instance_group asks for a GPU (KIND_GPU or gpus) beside {chosen.short_name}"
        )
    if len(set(group.gpus)) != len(group.gpus):
        raise LoadError(f"instance_group has gpus {list(group.gpus)}, expected each once")
    if not group.gpus:
        return [chosen]
    return [_made(chosen.name, {**chosen.options, "device": str(g)}, "gpus") for g in group.gpus]


def _accelerators(config: ModelConfig) -> Iterator[ExecutionProvider]:
    accelerators = config.optimization.execution_accelerators
    for kind, taken in _OF_KIND.items():
        for accelerator in getattr(accelerators, kind):
            what = f"{kind} {accelerator.name!r}"
            made = _made(accelerator.name, dict(accelerator.parameters), what)
            if made.name not in taken:
                names = [s for s, name in execution_provider.SHORT_NAMES.items() if name in taken]
                raise LoadError(f"{what} is not supported, expected {' or '.join(names)}")
            # The provider's own options load libraries, write files, take addresses: a client that
            # may load a model must not set them.
            ours = execution_provider.OPTIONS[made.name]
            if others := sorted(made.options.keys() - ours.keys()):
                raise LoadError(
                    f"{what} has {', '.join(others)}, expected {', '.join(ours) or 'none'}; set "
                    "other options with --ep"
                )
            yield made


def _made(name: str, options: dict[str, str], what: str) -> ExecutionProvider:
    try:
        return execution_provider.make(name, options)
    except ValueError as error:
        raise LoadError(f"{what}: expected {error}") from None
