import dataclasses
import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from measure.core import environment
from measure.core.environment import describe, snapshot, steal_fraction


@pytest.fixture
def repository(tmp_path):
    def git(*arguments):
        subprocess.run(
            ["git", "-c", "user.name=n", "-c", "user.email=e", *arguments],
            cwd=tmp_path,
            check=True,
            capture_output=True,
        )

    git("init")
    (tmp_path / "file").write_text("text")
    git("add", "file")
    git("commit", "-m", "first")
    return tmp_path


def test_description_survives_json():
    start = snapshot()
    described = describe(start, snapshot(), ["python", "-m", "client", "two words"])
    assert json.loads(json.dumps(described, allow_nan=False)) == described
    assert described["command_line"] == "python -m client 'two words'"
    assert described["started"] == start.time
    assert described["started"].endswith("+00:00")
    assert described["cores"] >= described["affinity_cores"] >= described["usable_cores"] >= 1
    told = set(described["versions"]) - set(environment.PROVIDERS)
    assert told == {"python", *environment.DISTRIBUTIONS}
    assert described["versions"]["numpy"]
    assert described["memory_bytes"] > 0


def test_the_command_line_is_this_process_unless_given():
    assert describe(snapshot(), snapshot())["command_line"] == shlex.join(sys.orig_argv)
    given = describe(snapshot(), snapshot(), command_line=["a", "b c"])
    assert given["command_line"] == "a 'b c'"


def test_steal_is_a_share_of_the_time_between_two_moments():
    start = dataclasses.replace(snapshot(), steal_s=10.0, total_s=100.0)
    end = dataclasses.replace(start, steal_s=11.0, total_s=120.0)
    assert steal_fraction(start, end) == pytest.approx(0.05)


def test_steal_is_unknown_where_the_system_does_not_say():
    start = dataclasses.replace(snapshot(), steal_s=None)
    assert steal_fraction(start, snapshot()) is None
    same = dataclasses.replace(start, steal_s=1.0, total_s=5.0)
    assert steal_fraction(same, same) is None


def test_commit_says_whether_the_tree_was_changed(repository):
    described = describe(snapshot(), snapshot(), source=repository)
    assert len(described["commit"]) == 40
    assert described["dirty"] is False
    (repository / "file").write_text("changed")
    assert describe(snapshot(), snapshot(), source=repository)["dirty"] is True


def test_a_copy_inside_another_repository_has_no_commit(repository):
    inside = repository / "site-packages"
    inside.mkdir()
    assert describe(snapshot(), snapshot(), source=inside)["commit"] is None


def test_outside_git_there_is_no_commit(tmp_path):
    described = describe(snapshot(), snapshot(), source=tmp_path)
    assert described["commit"] is None
    assert described["dirty"] is None


def test_missing_files_and_programs_never_raise(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(environment, "CPUINFO", tmp_path / "none")
    monkeypatch.setattr(environment, "GOVERNOR", tmp_path / "none")
    monkeypatch.setattr(environment.psutil, "PROCFS_PATH", str(tmp_path))
    monkeypatch.setattr(environment, "DISTRIBUTIONS", ("no-such-distribution",))
    described = describe(snapshot(), snapshot())
    assert described["commit"] is None
    assert described["governor"] is None
    assert described["memory_bytes"] is None
    assert described["steal_fraction"] is None
    assert described["versions"]["no-such-distribution"] is None


def test_source_is_the_tree_that_holds_the_client():
    assert (environment.SOURCE / "client" / "client.py").exists()
    assert Path(environment.__file__).is_relative_to(environment.SOURCE)
