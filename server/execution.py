"""Decide which execution provider runs a model, by its configuration."""

from protos.model_config_pb2 import ModelConfig, ModelInstanceGroup
from server.errors import LoadError

CPU = "CPUExecutionProvider"


def provider(config: ModelConfig) -> str:
    """ONNX Runtime's name of the provider; LoadError names what is asked for and not here."""
    for group in config.instance_group:
        if group.kind == ModelInstanceGroup.KIND_GPU or group.gpus:
            raise LoadError(
                "instance_group asks for a GPU (KIND_GPU or gpus); models run on the CPU"
            )
    accelerators = config.optimization.execution_accelerators
    for kind in ("gpu_execution_accelerator", "cpu_execution_accelerator"):
        for accelerator in getattr(accelerators, kind):
            raise LoadError(f"{kind} {accelerator.name!r} is not here; models run on the CPU alone")
    return CPU
