"""A server sizes itself by the control groups that it runs in: real ones, and made-up ones."""

import contextlib
import json
import os
import subprocess
import uuid
from pathlib import Path

import pytest

from model.export import export
from model.weights import from_seed
from server.app import sizing

MIB = 2**20
LIMIT_BYTES = 768 * MIB
ONE_CORE = "100000"
GROUPS = Path("/sys/fs/cgroup")
# Runs the words behind the folders, which are groups, in these.
ENTER = 'for group in $GROUPS; do echo $$ > "$group/cgroup.procs"; done; exec "$@"'
HIDE = 'mount --bind "$TREE" /sys/fs/cgroup && exec "$@"'

needs_cores = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="one core is no more than a quota of one"
)


@pytest.fixture(scope="module")
def models(graphs):
    export(graphs.folder, "linear", from_seed(4, 8, 0), "float32", 0)
    return graphs.folder


@pytest.fixture
def groups():
    """Make groups with limits, of either version of control groups; skips where that fails."""
    made = []

    def make(limits):
        name = f"argmax-{uuid.uuid4().hex}"
        for parent, files in _places(limits).items():
            folder = parent / name
            folder.mkdir()
            made.append(folder)
            for file, text in files.items():
                (folder / file).write_text(text)
        return made

    def make_or_skip(limits):
        try:
            return make(limits)
        except OSError as error:
            pytest.skip(f"control groups cannot be made here: {error}")

    yield make_or_skip
    for folder in made:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _places(limits):
    controllers = GROUPS / "cgroup.controllers"
    if controllers.exists() and {"cpu", "memory"} <= set(controllers.read_text().split()):
        return {GROUPS: {"cpu.max": f"{limits['cpu']} 100000", "memory.max": limits["memory"]}}
    return {
        GROUPS / "cpu": {"cpu.cfs_quota_us": limits["cpu"]},
        GROUPS / "memory": {"memory.limit_in_bytes": limits["memory"]},
    }


def serving(process):
    """The line that a server logs when it serves, and its warnings."""
    lines = [json.loads(line) for line in process.said()]
    (started,) = (line for line in lines if line["message"] == "serving")
    return started, [line["message"] for line in lines if line["level"] == "WARNING"]


def in_groups(folders):
    return ("env", f"GROUPS={' '.join(map(str, folders))}", "sh", "-ec", ENTER, "enter")


def in_tree(tree):
    """Words before those of a command that sees a folder as /sys/fs/cgroup."""
    before = ("unshare", "--mount", "env", f"TREE={tree}", "sh", "-ec", HIDE, "hide")
    done = subprocess.run([*before, "true"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no namespace of mounts can be made here: {done.stderr.strip()}")
    return before


@needs_cores
def test_with_a_quota_of_one_core_it_uses_one_thread_and_says_why(launch, models, groups):
    folders = groups({"cpu": ONE_CORE, "memory": str(LIMIT_BYTES)})
    process = launch(models, before=in_groups(folders))
    assert process.stop() == 0, process.said()
    started, warnings = serving(process)
    assert started["threads"] == 1
    assert started["threads_because"].startswith(f"CPU quota of 1 in {folders[0]}/cpu.")
    assert started["memory_limit_bytes"] == LIMIT_BYTES
    assert started["max_inflight_bytes"] == LIMIT_BYTES // 8
    assert warnings == []


@needs_cores
def test_the_quota_and_the_limit_of_a_container_count(launch, models, tmp_path):
    (tmp_path / "cpu.max").write_text("190000 100000\n")
    (tmp_path / "memory.max").write_text(f"{LIMIT_BYTES}\n")
    process = launch(models, before=in_tree(tmp_path))
    assert process.stop() == 0, process.said()
    started, warnings = serving(process)
    assert started["threads"] == 1
    assert started["threads_because"] == "CPU quota of 1.9 in /sys/fs/cgroup/cpu.max"
    assert started["max_inflight_bytes"] == LIMIT_BYTES // 8
    assert warnings == []


def test_options_over_the_limits_are_taken_with_a_warning(launch, models, tmp_path):
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    (tmp_path / "memory.max").write_text(f"{LIMIT_BYTES}\n")
    options = ("--threads", 2, "--max-inflight-bytes", LIMIT_BYTES)
    process = launch(models, *options, before=in_tree(tmp_path))
    assert process.stop() == 0, process.said()
    started, (cores, memory) = serving(process)
    assert (started["threads"], started["threads_because"]) == (2, "--threads")
    assert started["max_inflight_bytes"] == LIMIT_BYTES
    assert cores.startswith("--threads: got 2, expected at most 1 (")
    assert memory.startswith(f"--max-inflight-bytes: got {LIMIT_BYTES}, expected at most ")
    assert f"limit of {LIMIT_BYTES} bytes (/sys/fs/cgroup/memory.max) leaves" in memory


def test_clients_are_told_no_larger_message_than_the_budget_takes(serve, models, call):
    caller = call(serve(models, max_inflight_bytes=5 * MIB, max_message_bytes=9 * MIB).address)
    parameters = caller.control("ModelConfig", name="linear").config.parameters
    assert parameters["max_message_bytes"].string_value == str(5 * MIB)


@pytest.mark.parametrize(
    ("limit", "default"),
    [(None, 256 * MIB), (2048 * MIB, 256 * MIB), (512 * MIB, 64 * MIB), (1, 1)],
)
def test_the_byte_budget_is_an_eighth_of_the_memory_at_most(limit, default, monkeypatch, tmp_path):
    found = limit and sizing.cgroup.Limit(limit, tmp_path)
    monkeypatch.setattr(sizing.cgroup, "memory_limit", lambda: found)
    assert sizing.inflight_bytes() == default
