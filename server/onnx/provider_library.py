"""Find the execution providers of this environment, and open sessions on them.

Some are built into ONNX Runtime; others are plugins, packages `onnxruntime_ep_NAME` that return the
path of their library and the provider that it registers.
"""

import contextlib
import ctypes
import importlib
import pkgutil
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from command_line.onnx_runtime import ort
from server.errors import StartError
from server.onnx.execution_provider import (
    CPU,
    CUDA,
    EXTRAS,
    GPU,
    OPENVINO,
    TENSORRT,
    ExecutionProvider,
    runtime_options,
)

_PLUGIN_PREFIX = "onnxruntime_ep_"
_NVIDIA_DRIVER = "libcuda.so.1"
# ONNX Runtime does not register a library twice.
_registering = threading.Lock()
_registered: set[str] = set()


def plugins() -> Mapping[str, str]:
    """Module of each installed plugin, by the name of its provider."""
    modules = {}
    for module in pkgutil.iter_modules():
        if module.name.startswith(_PLUGIN_PREFIX):
            for name in importlib.import_module(module.name).get_ep_names():
                modules[name] = module.name
    return modules


def names() -> list[str]:
    """Every installed provider: ONNX Runtime's, then those of plugins."""
    return list(dict.fromkeys([*ort.get_available_providers(), *plugins()]))


def devices(name: str) -> list[Any]:
    """Devices (onnxruntime.OrtEpDevice) of a provider; a plugin is registered first.

    StartError if ONNX Runtime rejects the plugin.
    """
    with _registering:
        module = plugins().get(name)
        if module is not None and module not in _registered:
            library = importlib.import_module(module).get_library_path()
            try:
                ort.register_execution_provider_library(module, library)
            except Exception as error:
                reason = str(error).splitlines()[0]
                raise _missing(name, f"ONNX Runtime rejects {module}: {reason}") from None
            _registered.add(module)
    return [device for device in ort.get_ep_devices() if device.ep_name == name]


def require(provider: ExecutionProvider) -> None:
    """StartError says in one line why the provider is missing, and how to install it."""
    name = provider.name
    built_in = name in ort.get_available_providers()
    # Each load runs this, and the search for plugins reads every folder that Python imports from.
    if not built_in and name not in plugins():
        raise _missing(name, "it is not installed" if name in EXTRAS else "it is not known")
    if name in GPU and not _has_nvidia_driver():
        raise _missing(name, f"this machine has no NVIDIA driver ({_NVIDIA_DRIVER})")
    if not built_in:
        _chosen(provider)


def session(
    graph: Path | bytes, options: ort.SessionOptions, provider: ExecutionProvider, threads: int
) -> ort.InferenceSession:
    """Load a graph, a file or its content, on a provider.

    StartError if the provider is missing, or would not be used. Other errors of the graph or an
    option are ONNX Runtime's own exceptions.
    """
    require(provider)
    name = provider.name
    source = graph if isinstance(graph, bytes) else str(graph)
    own_options = runtime_options(provider, threads)
    if name != CPU:
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if name not in ort.get_available_providers():
        options.add_provider_for_devices(_chosen(provider), own_options)
        # Otherwise ONNX Runtime would retry on the CPU, and print that it did.
        made = ort.InferenceSession(source, options, enable_fallback=0)
    else:
        providers = _with_companions(provider, own_options)
        if name in GPU:
            # Libraries of the NVIDIA packages; the system's are found without this. It prints
            # those it does not find, and stdout is for the address.
            with contextlib.redirect_stdout(sys.stderr):
                ort.preload_dlls()
        made = ort.InferenceSession(source, options, providers=providers, enable_fallback=0)
    if made.get_providers()[0] != name:
        replaced = f"ONNX Runtime replaced it by {made.get_providers()[0]}"
        raise _missing(name, f"{replaced}, as it does when a required library is missing")
    used = used_providers(made, name)
    if name not in used:
        raise StartError(f"ONNX Runtime gave every node to {', '.join(used)}, none to {name}")
    return made


def used_providers(made: ort.InferenceSession, name: str) -> list[str]:
    """Providers to which ONNX Runtime assigned nodes, the chosen one first."""
    if name == CPU:
        return [CPU]
    assigned = {part.ep_name for part in made.get_provider_graph_assignment_info()}
    # A graph may fold to constants, so that no node is left to run.
    return sorted(assigned or {name}, key=lambda each: (each != name, each))


def _with_companions(
    provider: ExecutionProvider, options: dict[str, str]
) -> list[tuple[str, dict[str, str]]]:
    if provider.name == OPENVINO:
        # Built into ONNX Runtime it takes its device as an option, as a plugin by OrtEpDevice.
        options = {"device_type": provider.option("device"), **options}
    providers = [(provider.name, options)]
    if provider.name == TENSORRT:
        # TensorRT leaves unknown nodes to CUDA, with the same precision as CUDA alone.
        cuda = ExecutionProvider(CUDA, {"device": provider.option("device")})
        providers.append((CUDA, runtime_options(cuda, 0)))
    return providers


def _chosen(provider: ExecutionProvider) -> list[Any]:
    """Devices of a plugin's provider that the options select."""
    selected = devices(provider.name)
    if provider.name == OPENVINO:
        device_name = provider.option("device")
        present = sorted(device.ep_metadata.get("ov_device", "") for device in selected)
        selected = [each for each in selected if each.ep_metadata.get("ov_device") == device_name]
        if not selected:
            raise _missing(
                provider.name,
                f"its plugin finds {', '.join(present) or 'nothing'} on this machine, not "
                f"{device_name}; it supports Intel devices only; onnxruntime-openvino, in place of "
                "onnxruntime, runs on other processors too",
            )
    if not selected:
        raise _missing(provider.name, "its plugin finds no device on this machine")
    return selected


def _missing(name: str, cause: str) -> StartError:
    others = [each for each in names() if each != name]
    extra = EXTRAS.get(name) if name not in names() else None
    install = f"; it comes with the extra [{extra}] of argmax-serving" if extra else ""
    return StartError(
        f"execution provider {name} is not available: {cause}; available are {', '.join(others)}"
        f"{install}"
    )


def _has_nvidia_driver() -> bool:
    try:
        ctypes.CDLL(_NVIDIA_DRIVER)
    except OSError:
        return False
    return True
