"""Read from a model's configuration how many of its batches run at once, and on which devices."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from protos.model_config_pb2 import ModelConfig, ModelInstanceGroup
from server.errors import LoadError
from server.loaded_model import config_provider
from server.onnx.execution_provider import GPU, ExecutionProvider

# Each is a thread, and memory for a batch.
MOST = 256


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
        providers = config_provider.providers(config, group, default)
        count = group.count or default_count
        found.append(InstanceGroup(group.name or f"{name}_{number}", count, tuple(providers)))
    total = len(instances(found))
    if total > MOST:
        raise LoadError(f"instance_group has {total} instances, expected {MOST} at most")
    return found


def instances(found: Sequence[InstanceGroup]) -> list[ExecutionProvider]:
    """The provider of each instance."""
    return [provider for group in found for provider in group.providers for _ in range(group.count)]
