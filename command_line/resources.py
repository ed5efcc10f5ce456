"""How many cores this process may use, by its affinity and its control groups.

Whatever decides by the number of cores asks here: the machine's own number is that of the node,
and threads beyond a container's quota stop each other until the next period.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from command_line import cgroup


@dataclass(frozen=True, slots=True)
class Cores:
    """How many cores, at least 1, and what sets that number."""

    count: int
    because: str


def cores(root: Path = cgroup.ROOT) -> int:
    """Number of cores that this process may use."""
    return limiting_cores(root).count


def limiting_cores(root: Path = cgroup.ROOT) -> Cores:
    """The least of the affinity and the quota of processor time, rounded down.

    `root`: the folder that has /proc and /sys.
    """
    affinity = len(os.sched_getaffinity(0))
    quota = cgroup.cpu_quota(root)
    if quota is None or quota.value >= affinity:
        return Cores(affinity, f"CPU affinity of {affinity}")
    return Cores(max(1, int(quota.value)), f"CPU quota of {quota.value:g} in {quota.file}")
