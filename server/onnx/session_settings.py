"""Settings of ONNX Runtime's sessions, beside their threads and their execution provider."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from server.onnx.execution_provider import GPU, ExecutionProvider

SEQUENTIAL, PARALLEL = "sequential", "parallel"
# The graph optimizations of ONNX Runtime: each level includes those after it.
ALL, EXTENDED, BASIC, OFF = "all", "extended", "basic", "off"

# ONNX Runtime's key of a run.
SHRINKAGE = "memory.enable_memory_arena_shrinkage"
SHRINKAGE_FORM = "cpu:0 or gpu:N, several separated by ';'"
_SHRINKAGE = re.compile(r"(cpu|gpu):[0-9]{1,3}(;(cpu|gpu):[0-9]{1,3})*")

_SWITCH = (re.compile("[01]"), "0 or 1")
_COUNT = (re.compile("[0-9]{1,9}"), "an integer of at least 0")
# Entries that may be set. ONNX Runtime ignores a misspelled key, and others of its keys write files
# or load libraries, or have an option here.
ENTRIES: Mapping[str, tuple[re.Pattern[str], str]] = {
    "session.intra_op.allow_spinning": _SWITCH,
    "session.inter_op.allow_spinning": _SWITCH,
    "session.force_spinning_stop": _SWITCH,
    "session.dynamic_block_base": _COUNT,
    "session.set_denormal_as_zero": _SWITCH,
    "session.disable_prepacking": _SWITCH,
    "session.use_device_allocator_for_initializers": _SWITCH,
    "session.disable_cpu_ep_fallback": _SWITCH,
    "session.disable_quant_qdq": _SWITCH,
    "session.enable_quant_qdq_cleanup": _SWITCH,
    "session.disable_double_qdq_remover": _SWITCH,
    "session.disable_aot_function_inlining": _SWITCH,
    "session.qdqisint8allowed": _SWITCH,
}


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """Settings of a session; the defaults are ONNX Runtime's.

    `inter_op_threads`: how many run nodes at the same time in parallel mode, 0: ONNX Runtime
    decides. `arena_shrinkage`: devices whose arenas return memory after each run, "" for none.
    `entries`: of `ENTRIES`, by key.
    """

    inter_op_threads: int = 0
    execution_mode: str = SEQUENTIAL
    graph_optimization: str = ALL
    mem_arena: bool = True
    mem_pattern: bool = True
    arena_shrinkage: str = ""
    entries: Mapping[str, str] = field(default_factory=dict, hash=False)

    def unusable_shrinkage(self, provider: ExecutionProvider) -> str | None:
        """The expected form, if every run on `provider` would fail for the arenas named here."""
        arenas = {"cpu:0"} if self.mem_arena else set()
        if provider.name in GPU:
            arenas.add(f"gpu:{provider.option('device')}")
        if set(self.arena_shrinkage.split(";")) <= {*arenas, ""}:
            return None
        return f"some of {', '.join(sorted(arenas))}" if arenas else "none, as there is no arena"


def shrinkage(text: str) -> str:
    """Read a list of devices; ValueError has the expected form."""
    if not _SHRINKAGE.fullmatch(text):
        raise ValueError(SHRINKAGE_FORM)
    return text


def entry(key: str, value: str) -> str:
    """Check an entry and return its value; ValueError has the expected form."""
    pattern, form = ENTRIES[key]
    if not pattern.fullmatch(value):
        raise ValueError(form)
    return value


def entries(text: str) -> Mapping[str, str]:
    """Read KEY=VALUE,...; ValueError has the expected form."""
    read: dict[str, str] = {}
    for pair in text.split(","):
        key, equals, value = pair.partition("=")
        if not equals or key in read:
            raise ValueError("KEY=VALUE,..., each key once")
        if key not in ENTRIES:
            raise ValueError(f"KEY=VALUE with one of these keys: {', '.join(ENTRIES)}")
        try:
            read[key] = entry(key, value)
        except ValueError as error:
            raise ValueError(f"{error} as {key}") from None
    return read
