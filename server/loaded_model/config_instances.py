"""Read from a model's configuration how many of its batches run at once, and on which devices."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from protos.model_config_pb2 import ModelConfig, ModelInstanceGroup
from server.errors import LoadError
from server.onnx import execution_provider
from server.onnx.execution_provider import CPU, CUDA, GPU, OPENVINO, ExecutionProvider

# Each is a thread, and memory for a batch.
MOST = 256
_OF_KIND = {
    "gpu_execution_accelerator": GPU,
    "cpu_execution_accelerator": (OPENVINO, CPU),
}


@dataclass(frozen=True, slots=True)
class InstanceGroup:
    """Instances that one entry of `instance_group` describes: `count` on each provider."""

    name: str
    count: int
    providers: tuple[ExecutionProvider, ...]

    def to_config(self) -> ModelInstanceGroup:
        """The entry of the completed configuration."""
        of_gpu = [each for each in self.providers if each.name in GPU]
        kind = ModelInstanceGroup.KIND_GPU if of_gpu else ModelInstanceGroup.KIND_CPU
        gpus = [int(each.option("device")) for each in of_gpu]
        return ModelInstanceGroup(name=self.name, count=self.count, kind=kind, gpus=gpus)


def groups(
    config: ModelConfig, name: str, default: ExecutionProvider, default_count: int
) -> list[InstanceGroup]:
    """The groups of a model `name`; one of `default_count` instances where it has none.

    LoadError for a provider that cannot be chosen, and for too many instances.
    """
    listed: Iterable[ModelInstanceGroup] = config.instance_group or [ModelInstanceGroup()]
    found = []
    for number, group in enumerate(listed):
        if group.count < 0:
            raise LoadError(f"instance_group count is {group.count}, expected 1 or more")
        providers = _providers(config, group, default)
        count = group.count or default_count
        found.append(InstanceGroup(group.name or f"{name}_{number}", count, tuple(providers)))
    total = len(instances(found))
    if total > MOST:
        raise LoadError(f"instance_group has {total} instances, expected {MOST} at most")
    return found


def instances(found: Sequence[InstanceGroup]) -> list[ExecutionProvider]:
    """The provider of each instance."""
    return [provider for group in found for provider in group.providers for _ in range(group.count)]


def _providers(
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
