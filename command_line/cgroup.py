"""Read the limits that control groups put on this process: processor time and memory.

https://docs.kernel.org/admin-guide/cgroup-v2.html, and v1 beside it, which a machine may use for
some controllers only. A limit holds for all groups below, so every ancestor counts that is visible.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

ROOT = Path("/")
_MOUNT = "sys/fs/cgroup"
# Where both versions are in use, v2 has a folder among those of v1's controllers.
_V2_MOUNTS = ("", "unified")
_V2 = ""
# In v1, a number that no memory reaches: the largest one, rounded to pages.
_UNLIMITED = 2**62


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit, in cores or bytes, and the file that sets it."""

    value: float
    file: Path


def cpu_quota(root: Path = ROOT) -> Limit | None:
    """The least quota of processor time, in cores; None without one.

    `root`: the folder that has /proc and /sys.
    """
    quotas = []
    for version, folder in _folders("cpu", root):
        if version == _V2:
            file = folder / "cpu.max"
            quota, _, period = _text(file).partition(" ")
        else:
            file = folder / "cpu.cfs_quota_us"
            quota, period = _text(file), _text(folder / "cpu.cfs_period_us")
        # "max" or -1: none.
        if quota.isdigit() and period.isdigit() and int(period):
            quotas.append(Limit(int(quota) / int(period), file))
    return _least(quotas)


def memory_limit(root: Path = ROOT) -> Limit | None:
    """The least limit of memory, in bytes; None without one. `root`: see `cpu_quota`."""
    limits = []
    for version, folder in _folders("memory", root):
        file = folder / ("memory.max" if version == _V2 else "memory.limit_in_bytes")
        text = _text(file)
        if text.isdigit() and int(text) < _UNLIMITED:
            limits.append(Limit(int(text), file))
    return _least(limits)


def _least(limits: list[Limit]) -> Limit | None:
    return min(limits, key=lambda limit: limit.value, default=None)


def _folders(controller: str, root: Path) -> Iterator[tuple[str, Path]]:
    """Folders of this process's groups and their ancestors, each with what its version is."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == _V2:
            mounts: tuple[str, ...] = _V2_MOUNTS
        elif controller in controllers.split(","):
            mounts = tuple(dict.fromkeys((controllers, controller)))
        else:
            continue
        group = PurePosixPath(path.lstrip("/"))
        # A container may see the path from outside, and at the mount its own group.
        below = [group, *group.parents] if ".." not in group.parts else [PurePosixPath()]
        for mount in mounts:
            for each in below:
                yield controllers, root / _MOUNT / mount / each


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
