"""Choose the settings of a model's sessions by its configuration, under Triton's names."""

import difflib
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from typing import Any

from protos.model_config_pb2 import ModelConfig
from server.errors import LoadError
from server.onnx.execution_provider import ExecutionProvider
from server.onnx.session_settings import (
    ALL,
    BASIC,
    ENTRIES,
    EXTENDED,
    OFF,
    PARALLEL,
    SEQUENTIAL,
    SHRINKAGE,
    SessionSettings,
    entry,
    shrinkage,
)

INTRA_OP_THREADS, INTER_OP_THREADS = "intra_op_thread_count", "inter_op_thread_count"
EXECUTION_MODE = "execution_mode"
MEM_ARENA, MEM_PATTERN = "enable_mem_arena", "enable_mem_pattern"
SHARED = "share_session_between_instances"
# Parameters of ONNX Runtime that this server knows.
KNOWN = (
    INTRA_OP_THREADS,
    INTER_OP_THREADS,
    EXECUTION_MODE,
    MEM_ARENA,
    MEM_PATTERN,
    SHRINKAGE,
    SHARED,
    *ENTRIES,
)
# Parameters by which Triton's backend sets CUDA; here an accelerator has them.
_OF_CUDA = (
    "cudnn_conv_algo_search",
    "gpu_mem_limit",
    "arena_extend_strategy",
    "do_copy_in_default_stream",
    "cudnn_conv_use_max_workspace",
)
# Keys of ONNX Runtime begin like this.
_PREFIXES = ("session.", "memory.", "optimization.", "mlas.", "ep.")

_LEVELS = {-1: BASIC, 0: ALL, 1: EXTENDED, 2: OFF}
_MODES = {"0": SEQUENTIAL, "1": PARALLEL}
_SWITCH = {"0": False, "false": False, "1": True, "true": True}
_MOST_THREADS = 99_999


def settings(
    config: ModelConfig, default: SessionSettings, providers: Collection[ExecutionProvider]
) -> SessionSettings:
    """The settings of the configuration, `default` for those that it leaves out.

    `providers` are what the model runs on. LoadError names the first wrong value.
    """
    chosen: dict[str, Any] = {}
    if config.optimization.HasField("graph"):
        chosen["graph_optimization"] = _level(config.optimization.graph.level)
    for key, field, read in (
        (INTER_OP_THREADS, "inter_op_threads", _count),
        (EXECUTION_MODE, "execution_mode", _mode),
        (MEM_ARENA, "mem_arena", _switch),
        (MEM_PATTERN, "mem_pattern", _switch),
        (SHRINKAGE, "arena_shrinkage", lambda text: text and shrinkage(text)),
    ):
        if key in config.parameters:
            chosen[field] = _read(config, key, read)
    entries = {
        key: _read(config, key, lambda text, key=key: entry(key, text))  # type: ignore[misc]
        for key in ENTRIES
        if key in config.parameters
    }
    found = replace(default, **chosen, entries={**default.entries, **entries})
    for provider in providers:
        if (expected := found.unusable_shrinkage(provider)) is not None:
            raise LoadError(
                f"parameter {SHRINKAGE} (or --arena-shrinkage) is {found.arena_shrinkage!r}, "
                f"expected {expected}"
            )
    return found


def threads(config: ModelConfig, default: int) -> int:
    """Threads of one execution; `default` where the configuration sets none, or 0."""
    if INTRA_OP_THREADS not in config.parameters:
        return default
    return int(_read(config, INTRA_OP_THREADS, _count)) or default


def shared(config: ModelConfig) -> bool:
    """Whether instances on one device share a session, and with it the weights."""
    return bool(_read(config, SHARED, _switch)) if SHARED in config.parameters else True


def without_effect(config: ModelConfig) -> Iterator[str]:
    """Texts about parameters that look like settings of ONNX Runtime, and are none here."""
    for key in sorted(config.parameters):
        if key in KNOWN:
            continue
        if key in _OF_CUDA:
            yield (
                f"parameter {key} is ignored: options of a GPU are parameters of its "
                "gpu_execution_accelerator"
            )
        elif key.startswith(_PREFIXES):
            yield f"parameter {key} is ignored: it is no setting of ONNX Runtime that is used here"
        elif close := difflib.get_close_matches(key, KNOWN, 1, 0.85):
            yield f"parameter {key} is ignored: did you mean {close[0]}?"


def _read(config: ModelConfig, key: str, read: Callable[[str], Any]) -> Any:
    text = config.parameters[key].string_value
    try:
        return read(text)
    except ValueError as error:
        raise LoadError(f"parameter {key} is {text!r}, expected {error}") from None


def _level(level: int) -> str:
    if level not in _LEVELS:
        raise LoadError(
            f"optimization.graph.level is {level}, expected -1 (basic), 0 (all), 1 (extended) or 2 "
            "(none)"
        )
    return _LEVELS[level]


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6):
        raise ValueError(f"an integer from 0 to {_MOST_THREADS}, 0 for the server's own choice")
    return int(text)


def _mode(text: str) -> str:
    if text not in _MODES:
        raise ValueError("0 (sequential) or 1 (parallel)")
    return _MODES[text]


def _switch(text: str) -> bool:
    if text.lower() not in _SWITCH:
        raise ValueError("0, 1, false or true")
    return _SWITCH[text.lower()]
