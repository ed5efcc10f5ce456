"""Sizes that follow from the cores and the memory this process may use, and what was decided."""

import resource
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from command_line import cgroup, resources

_MOST_INFLIGHT_BYTES = 256 * 2**20
# Of the memory limit. Requests take half as much again in the allocator; the interpreter, models,
# their batches, and versions that are loaded take the rest.
_INFLIGHT_SHARE = 8
_STATM = Path("/proc/self/statm")


class Sizes(Protocol):
    """The options that are compared with what the process may use."""

    @property
    def threads(self) -> int:
        """Threads of one execution."""

    @property
    def max_inflight_bytes(self) -> int:
        """Most bytes of requests in memory."""


def inflight_bytes() -> int:
    """Default of --max-inflight-bytes: 256 MiB, or an eighth of the memory limit if less."""
    limit = cgroup.memory_limit()
    if limit is None:
        return _MOST_INFLIGHT_BYTES
    return max(1, min(_MOST_INFLIGHT_BYTES, int(limit.value) // _INFLIGHT_SHARE))


def described(sizes: Sizes) -> Mapping[str, Any]:
    """The sizes and what they were decided by, for the log."""
    cores, limit = resources.limiting_cores(), cgroup.memory_limit()
    return {
        "threads": sizes.threads,
        "threads_because": cores.because if sizes.threads == cores.count else "--threads",
        "max_inflight_bytes": sizes.max_inflight_bytes,
        "memory_limit_bytes": None if limit is None else int(limit.value),
    }


def thread_warnings(sizes: Sizes) -> Iterator[str]:
    """Warn of more threads than the process may use cores."""
    cores = resources.limiting_cores()
    if sizes.threads > cores.count:
        yield (
            f"--threads: got {sizes.threads}, expected at most {cores.count} ({cores.because}): "
            "more threads only slow each other down"
        )


def memory_warnings(sizes: Sizes) -> Iterator[str]:
    """Warn of a byte budget that the memory limit has no room for, once models are loaded."""
    limit = cgroup.memory_limit()
    if limit is None:
        return
    left = max(0, int(limit.value) - _own_bytes())
    if sizes.max_inflight_bytes > left:
        yield (
            f"--max-inflight-bytes: got {sizes.max_inflight_bytes}, expected at most {left}, all "
            f"that the memory limit of {int(limit.value)} bytes ({limit.file}) leaves beside the "
            "loaded models: the process may be killed"
        )


def _own_bytes() -> int:
    """Memory of this process that it shares with no file."""
    _, resident, shared, *_ = map(int, _STATM.read_text().split())
    return (resident - shared) * resource.getpagesize()
