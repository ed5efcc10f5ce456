"""Make ONNX Runtime's options of sessions and runs from our settings."""

from collections.abc import Mapping

from command_line.onnx_runtime import ort
from server.onnx.session_settings import (
    ALL,
    BASIC,
    EXTENDED,
    OFF,
    PARALLEL,
    SEQUENTIAL,
    SHRINKAGE,
    SessionSettings,
)

_MODES: Mapping[str, ort.ExecutionMode] = {
    SEQUENTIAL: ort.ExecutionMode.ORT_SEQUENTIAL,
    PARALLEL: ort.ExecutionMode.ORT_PARALLEL,
}
_LEVELS: Mapping[str, ort.GraphOptimizationLevel] = {
    ALL: ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    EXTENDED: ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    BASIC: ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    OFF: ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}
# Spinning idle threads would take the core that receiving messages needs.
_USUAL_ENTRIES = {f"session.{pool}_op.allow_spinning": "0" for pool in ("intra", "inter")}


def of_session(settings: SessionSettings, threads: int) -> ort.SessionOptions:
    """Options of a session with `threads` threads for one node."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = settings.inter_op_threads
    options.execution_mode = _MODES[settings.execution_mode]
    options.graph_optimization_level = _LEVELS[settings.graph_optimization]
    options.enable_cpu_mem_arena = settings.mem_arena
    options.enable_mem_pattern = settings.mem_pattern
    for key, value in {**_USUAL_ENTRIES, **settings.entries}.items():
        options.add_session_config_entry(key, value)
    return options


def of_run(settings: SessionSettings) -> ort.RunOptions | None:
    """Options of each run; None where they are ONNX Runtime's own."""
    if not settings.arena_shrinkage:
        return None
    options = ort.RunOptions()
    options.add_run_config_entry(SHRINKAGE, settings.arena_shrinkage)
    return options
