"""What control groups leave of the machine, read from made-up trees of /proc and /sys."""

import os
from pathlib import Path

import pytest

from command_line import cgroup, resources

AFFINITY = len(os.sched_getaffinity(0))
CORE = "100000 100000"
UNLIMITED_V1 = "9223372036854771712"


@pytest.fixture
def tree(tmp_path):
    """Make /proc/self/cgroup, and files below /sys/fs/cgroup."""

    def make(groups, files):
        listed = tmp_path / "proc" / "self" / "cgroup"
        listed.parent.mkdir(parents=True)
        listed.write_text(groups)
        for name, text in files.items():
            file = tmp_path / "sys" / "fs" / "cgroup" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{text}\n")
        return tmp_path

    return make


def v1(folder, quota, period=100_000):
    return {f"{folder}/cpu.cfs_quota_us": quota, f"{folder}/cpu.cfs_period_us": period}


@pytest.mark.parametrize(
    ("groups", "files", "quota"),
    [
        # The container's own group, as a namespace of groups shows it.
        ("0::/", {"cpu.max": CORE}, 1),
        ("0::/", {"cpu.max": "150000 100000"}, 1.5),
        ("0::/", {"cpu.max": "10000 100000"}, 0.1),
        ("0::/", {"cpu.max": "max 100000"}, None),
        # Any ancestor may be the tightest.
        ("0::/a/b", {"a/b/cpu.max": "300000 100000", "a/cpu.max": "200000 100000"}, 2),
        ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "max 100000", "cpu.max": CORE}, 1),
        ("0::/a/b", {"a/b/cpu.max": CORE, "a/c/cpu.max": "1 100000"}, 1),
        # The path is that of the node, the mount that of the container.
        ("0::/kubepods/pod1/c", {"cpu.max": CORE}, 1),
        ("0::/../../other", {"cpu.max": CORE}, 1),
        # A name may hold a colon.
        ("0::/a:b", {"a:b/cpu.max": CORE}, 1),
        ("3:cpu,cpuacct:/a", v1("cpu,cpuacct/a", 250_000), 2.5),
        ("3:cpu,cpuacct:/a", v1("cpu/a", 50_000, 25_000), 2),
        ("3:cpu:/a/b", {**v1("cpu/a/b", -1), **v1("cpu/a", 100_000)}, 1),
        ("3:cpu:/docker/1", v1("cpu", 100_000), 1),
        ("3:cpuset:/a", v1("cpu/a", 100_000), None),
        ("3:cpu:/", v1("cpu", -1), None),
        # Both versions beside each other.
        ("1:cpu:/a\n0::/b", {**v1("cpu/a", 300_000), "unified/b/cpu.max": "200000 100000"}, 2),
        ("0::/", {}, None),
        ("0::/", {"cpu.max": "words"}, None),
        ("0::/", {"cpu.max": "100000 0"}, None),
        ("no groups", {}, None),
        ("", {}, None),
    ],
)
def test_the_quota_is_the_least_of_the_group_and_its_ancestors(tree, groups, files, quota):
    found = cgroup.cpu_quota(tree(groups, files))
    assert (found and found.value) == quota


@pytest.mark.parametrize(
    ("groups", "files", "limit"),
    [
        ("0::/", {"memory.max": "536870912"}, 2**29),
        ("0::/a/b", {"a/b/memory.max": "max", "a/memory.max": "1000", "memory.max": "max"}, 1000),
        ("0::/a", {"a/memory.max": "max"}, None),
        ("4:memory:/a/b", {"memory/a/b/memory.limit_in_bytes": "1000"}, 1000),
        (
            "4:memory:/a",
            {"memory/a/memory.limit_in_bytes": UNLIMITED_V1, "memory/memory.limit_in_bytes": 7},
            7,
        ),
        ("4:memory:/a", {"memory/a/memory.limit_in_bytes": UNLIMITED_V1}, None),
        ("4:cpu:/a", {"memory/a/memory.limit_in_bytes": "1000"}, None),
    ],
)
def test_the_memory_limit_is_the_least_of_the_group_and_its_ancestors(tree, groups, files, limit):
    found = cgroup.memory_limit(tree(groups, files))
    assert (found and found.value) == limit


def test_a_limit_names_the_file_that_sets_it(tree):
    root = tree("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": CORE})
    assert cgroup.cpu_quota(root).file == root / "sys/fs/cgroup/a/cpu.max"


@pytest.mark.parametrize(("quota", "count"), [("10000", 1), ("100000", 1), ("199999", 1)])
def test_a_quota_is_rounded_down_to_at_least_one_core(tree, monkeypatch, quota, count):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(64))
    root = tree("0::/", {"cpu.max": f"{quota} 100000"})
    found = resources.limiting_cores(root)
    assert found.count == resources.cores(root) == count
    assert found.because == f"CPU quota of {int(quota) / 1e5:g} in {root}/sys/fs/cgroup/cpu.max"


def test_a_quota_of_some_cores_of_many_gives_that_many(tree, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(64))
    assert resources.cores(tree("0::/", {"cpu.max": "290000 100000"})) == 2


@pytest.mark.parametrize("quota", ["max", f"{(AFFINITY + 1) * 100_000}"])
def test_without_a_smaller_quota_the_affinity_counts(tree, quota):
    found = resources.limiting_cores(tree("0::/", {"cpu.max": f"{quota} 100000"}))
    assert (found.count, found.because) == (AFFINITY, f"CPU affinity of {AFFINITY}")


def test_a_machine_without_control_groups_has_no_limits(tmp_path):
    assert cgroup.cpu_quota(tmp_path) is None
    assert cgroup.memory_limit(tmp_path) is None
    assert resources.cores(tmp_path) == AFFINITY


def test_the_groups_of_this_process_can_be_read():
    assert Path("/proc/self/cgroup").exists()
    assert 1 <= resources.cores() <= AFFINITY
