"""Name an execution provider of ONNX Runtime, with its options, in one line of text.

`openvino:precision=bf16,device=GPU` is a short name or ONNX Runtime's own, then options. By default
every provider computes in the graph's own precision; a faster, less exact one is an option.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
OPENVINO = "OpenVINOExecutionProvider"
# Providers that copy their inputs to an NVIDIA GPU.
GPU = (CUDA, TENSORRT)

SHORT_NAMES: Mapping[str, str] = {
    "cpu": CPU,
    "cuda": CUDA,
    "tensorrt": TENSORRT,
    "openvino": OPENVINO,
}
# Extras that install the providers that the plain package lacks.
EXTRAS: Mapping[str, str] = {CUDA: "cuda", TENSORRT: "cuda", OPENVINO: "openvino"}
WANTED = "cpu, cuda, tensorrt, openvino or a provider's own name, then :key=value,..."

_SWITCH = re.compile("[01]")
_NUMBER = re.compile("[0-9]{1,18}")
_OPENVINO_DEVICE = re.compile("CPU|(GPU|NPU)(\\.[0-9]+)?")
_OPENVINO_PRECISION = re.compile("f32|f16|bf16")
# A property of OpenVINO itself, such as PERFORMANCE_HINT.
_OPENVINO_PROPERTY = re.compile("[A-Z][A-Z0-9_]*")


@dataclass(frozen=True, slots=True)
class Option:
    """An option of ours: its form, its default, and its help text."""

    pattern: re.Pattern[str]
    form: str
    default: str
    help: str


_DEVICE_ID = Option(_NUMBER, "a number", "0", "which GPU")
_GPU_OPTIONS = {
    "device": _DEVICE_ID,
    "tf32": Option(_SWITCH, "0 or 1", "0", "1: float32 products in TF32, faster, less exact"),
    "memory_bytes": Option(_NUMBER, "bytes", "", "most GPU memory of one model's arena"),
}
OPTIONS: Mapping[str, Mapping[str, Option]] = {
    CPU: {},
    CUDA: _GPU_OPTIONS,
    TENSORRT: {
        "device": _DEVICE_ID,
        "precision": Option(re.compile("f32|f16"), "f32 or f16", "f32", "f16: faster, less exact"),
    },
    OPENVINO: {
        "device": Option(_OPENVINO_DEVICE, "CPU, GPU, GPU.N or NPU", "CPU", "which device"),
        "precision": Option(
            _OPENVINO_PRECISION, "f32, f16 or bf16", "f32", "f16, bf16: faster, less exact"
        ),
    },
}
# Set here from other options, so a user's value would be lost or override them.
_RESERVED = {
    CPU: (),
    CUDA: ("use_tf32", "device_id", "gpu_mem_limit"),
    TENSORRT: ("trt_fp16_enable", "device_id"),
    OPENVINO: ("load_config", "device_type", "num_of_threads", "INFERENCE_PRECISION_HINT"),
}


@dataclass(frozen=True, slots=True)
class ExecutionProvider:
    """ONNX Runtime's name of a provider, and its options; `parse` reads the `str` of it."""

    name: str = CPU
    options: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        options = ",".join(f"{key}={value}" for key, value in self.options.items())
        return f"{self.short_name}:{options}" if options else self.short_name

    @property
    def short_name(self) -> str:
        """The name to choose it by."""
        return next((short for short, name in SHORT_NAMES.items() if name == self.name), self.name)

    def option(self, key: str) -> str:
        """Value of an option of ours, its default if not set."""
        return self.options.get(key, OPTIONS[self.name][key].default)


def parse(text: str) -> ExecutionProvider:
    """Read NAME or NAME:key=value,...; ValueError has the expected form."""
    name, colon, rest = text.partition(":")
    pairs = rest.split(",") if colon else []
    options: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals) or key in options:
            raise ValueError(WANTED)
        options[key] = value
    return make(name, options)


def make(name: str, options: Mapping[str, str]) -> ExecutionProvider:
    """A provider by its short or its own name; ValueError has the expected form."""
    own_name = SHORT_NAMES.get(name, name)
    if not re.fullmatch("[A-Za-z0-9_.]+", name) or (
        name not in SHORT_NAMES and not name.endswith("ExecutionProvider")
    ):
        raise ValueError(WANTED)
    ours = OPTIONS.get(own_name, {})
    for key, value in options.items():
        if key in _RESERVED.get(own_name, ()) or (own_name == CPU):
            instead = f", which takes {', '.join(ours)}" if ours else ", which takes none"
            raise ValueError(f"no {key} of {name}{instead}")
        if key in ours and not ours[key].pattern.fullmatch(value):
            raise ValueError(f"{ours[key].form} as {key} of {name}")
    return ExecutionProvider(own_name, dict(options))


def runtime_options(provider: ExecutionProvider, threads: int) -> dict[str, str]:
    """Options under ONNX Runtime's own keys; options that are not ours pass unchanged.

    `threads`: how many one execution uses, where the provider has threads of its own.
    """
    ours = OPTIONS.get(provider.name, {})
    options = {key: value for key, value in provider.options.items() if key not in ours}
    if provider.name == CUDA:
        options["device_id"] = provider.option("device")
        options["use_tf32"] = provider.option("tf32")
        if limit := provider.option("memory_bytes"):
            options["gpu_mem_limit"] = limit
    elif provider.name == TENSORRT:
        options["device_id"] = provider.option("device")
        options["trt_fp16_enable"] = "1" if provider.option("precision") == "f16" else "0"
    elif provider.name == OPENVINO:
        device = provider.option("device")
        properties = {key: options.pop(key) for key in list(options) if _is_property(key)}
        properties["INFERENCE_PRECISION_HINT"] = provider.option("precision")
        if device == "CPU":
            properties.setdefault("INFERENCE_NUM_THREADS", str(threads))
        options["load_config"] = json.dumps({device: properties})
    return options


def _is_property(key: str) -> bool:
    return _OPENVINO_PROPERTY.fullmatch(key) is not None
