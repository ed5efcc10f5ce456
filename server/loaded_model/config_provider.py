"""Choose the execution provider of a model by its configuration."""

from collections.abc import Iterator

from protos.model_config_pb2 import ModelConfig, ModelInstanceGroup
from server.errors import LoadError
from server.onnx import execution_provider
from server.onnx.execution_provider import CPU, CUDA, GPU, OPENVINO, ExecutionProvider

_OF_KIND = {
    "gpu_execution_accelerator": GPU,
    "cpu_execution_accelerator": (OPENVINO, CPU),
}


def provider(config: ModelConfig, default: ExecutionProvider) -> ExecutionProvider:
    """The provider that the configuration names, else `default`.

    LoadError for an unknown provider, and for two at once.
    """
    providers = list(_accelerators(config))
    if len(providers) > 1:
        names = ", ".join(each.short_name for each in providers)
        raise LoadError(f"execution_accelerators names {names}, expected one")
    chosen = providers[0] if providers else None
    devices = sorted({gpu for group in config.instance_group for gpu in group.gpus})
    kinds = {group.kind for group in config.instance_group}
    wants_gpu = ModelInstanceGroup.KIND_GPU in kinds or bool(devices)
    if not wants_gpu:
        if chosen is None and ModelInstanceGroup.KIND_CPU in kinds and default.name in GPU:
            return ExecutionProvider(CPU)
        return chosen or default
    if len(devices) > 1:
        raise LoadError(f"instance_group has gpus {devices}, expected one")
    if chosen is None:
        chosen = default if default.name in GPU else ExecutionProvider(CUDA)
    if chosen.name not in GPU:
        raise LoadError(
            f"instance_group asks for a GPU (KIND_GPU or gpus) beside {chosen.short_name}"
        )
    if devices:
        return _made(chosen.name, {**chosen.options, "device": str(devices[0])}, "gpus")
    return chosen


def instance_kind(chosen: ExecutionProvider) -> ModelInstanceGroup.Kind:
    """The configuration's name for the kind of device that a provider runs on."""
    return ModelInstanceGroup.KIND_GPU if chosen.name in GPU else ModelInstanceGroup.KIND_CPU


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
