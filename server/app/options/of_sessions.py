"""The server's options for the instances of a model and their sessions."""

from collections.abc import Mapping
from dataclasses import dataclass

from server.app.options import values as option_values
from server.app.options.declaration import EXECUTION, option
from server.onnx import session_settings
from server.onnx.session_settings import (
    ALL,
    BASIC,
    EXTENDED,
    OFF,
    PARALLEL,
    SEQUENTIAL,
    SessionSettings,
)

_MOST_INSTANCES = 256


def _shrinkage(text: str) -> str:
    try:
        return "" if text == "off" else session_settings.shrinkage(text)
    except ValueError as error:
        raise ValueError(f"off or {error}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOptions:
    """Options of sessions; a model's configuration overrides each of them."""

    instances: int = option(
        EXECUTION,
        option_values.integer(1, _MOST_INSTANCES),
        "count",
        "batches of one model that run at the same time; they divide --threads among them",
        1,
    )
    inter_op_threads: int = option(
        EXECUTION,
        option_values.integer(0, 100_000),
        "count",
        "threads that run nodes of a graph at the same time, with --execution-mode parallel; 0: "
        "ONNX Runtime decides",
        0,
    )
    execution_mode: str = option(
        EXECUTION,
        option_values.one_of(**{SEQUENTIAL: SEQUENTIAL, PARALLEL: PARALLEL}),
        f"{SEQUENTIAL}|{PARALLEL}",
        "how the nodes of a graph run",
        SEQUENTIAL,
    )
    graph_optimization: str = option(
        EXECUTION,
        option_values.one_of(**{level: level for level in (ALL, EXTENDED, BASIC, OFF)}),
        f"{ALL}|{EXTENDED}|{BASIC}|{OFF}",
        "which optimizations ONNX Runtime applies to a graph when it loads it",
        ALL,
    )
    mem_arena: bool = option(
        EXECUTION,
        option_values.on_or_off,
        "on|off",
        "keep memory of executions for later ones; off: less memory, slower",
        True,
    )
    mem_pattern: bool = option(
        EXECUTION,
        option_values.on_or_off,
        "on|off",
        "plan the memory of an execution by earlier ones of the same shapes",
        True,
    )
    arena_shrinkage: str = option(
        EXECUTION,
        _shrinkage,
        "off|cpu:0|gpu:N",
        "devices whose unused memory is returned after each execution",
        "",
        unset="off",
    )
    session_config: Mapping[str, str] = option(
        EXECUTION,
        session_settings.entries,
        "KEY=VALUE,...",
        "entries of ONNX Runtime's session configuration, such as "
        "session.intra_op.allow_spinning=1; may be repeated",
        dict,
        unset="none",
    )

    @property
    def session(self) -> SessionSettings:
        """The settings of sessions."""
        return SessionSettings(
            inter_op_threads=self.inter_op_threads,
            execution_mode=self.execution_mode,
            graph_optimization=self.graph_optimization,
            mem_arena=self.mem_arena,
            mem_pattern=self.mem_pattern,
            arena_shrinkage=self.arena_shrinkage,
            entries=self.session_config,
        )
