import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from command_line.extras import MissingExtra, imported, optional
from measure.__main__ import GROUPS

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
COMMANDS = [command for group in GROUPS.values() for command in group]
HEAVY = {
    "jinja2",
    "matplotlib",
    "onnx",
    "onnxruntime",
    "plotly",
    "psutil",
    "rich",
    "scipy",
    "simpy",
}

# Runs a module where nothing is found but what is here and what the base installs.
IN_BASE = """
import importlib.abc, runpy, sys

class OnlyBase(importlib.abc.MetaPathFinder):
    here = {*sys.stdlib_module_names, "google", "hpack", "ml_dtypes", "numpy"}
    here |= {"client", "command_line", "measure", "model", "protos", "rowwise", "server", "soak"}
    here |= {"transport"}

    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] not in self.here:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, OnlyBase())
del sys.argv[0]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
# The modules that are imported when a command ends, on stderr.
IMPORTED = """
import atexit, runpy, sys

atexit.register(lambda: print(*sys.modules, file=sys.stderr))
del sys.argv[0]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def run(script, *words):
    return subprocess.run(
        [sys.executable, "-c", script, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.parametrize(
    "words",
    [
        ["client", "--help"],
        ["client", "predict", "--help"],
        ["server", "--help"],
        ["model", "--help"],
        ["model", "export", "--help"],
    ],
    ids=" ".join,
)
def test_what_the_base_can_explain_it_explains(words):
    done = run(IN_BASE, *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: ")


def in_words(command):
    quick = command.name in ("sweep", "loadgen")
    return pytest.param(
        ["client", command.name],
        command.name,
        command.extra,
        marks=() if quick else pytest.mark.slow,
    )


@pytest.mark.parametrize(
    ("words", "user", "extra"),
    [
        *(in_words(command) for command in COMMANDS if command.extra is not None),
        (["client", "sweep", "--help"], "sweep", "measure"),
        (["server"], "serving", "server"),
        (["server", "--models", "models"], "serving", "server"),
        (["server", "--list-ep"], "serving", "server"),
        (["model"], "this command", "server"),
        (["model", "export", "--out", "models"], "this command", "server"),
        (["soak", "--seconds", "1"], "this command", "dev"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_the_base_cannot_do_names_its_extra_in_one_line(words, user, extra):
    done = run(IN_BASE, *words)
    assert (done.returncode, done.stdout) == (2, "")
    program = "soak" if words[0] == "soak" else f"argmax-{words[0]}"
    assert re.fullmatch(
        rf"{program}: error: {user} needs the extra \[{extra}\]: "
        rf"run `pip install -e '\.\[{extra}\]'` in the folder of argmax-serving "
        r"\(no module named '\w+'\)\n",
        done.stderr,
    )


def test_every_extra_that_is_named_exists():
    assert {command.extra for command in COMMANDS} <= {None, *PROJECT["optional-dependencies"]}


@pytest.mark.parametrize(
    "words", [["client", "--help"], ["client", "predict", "--help"], ["client", "dance"]]
)
def test_what_needs_no_extra_imports_nothing_of_one(words):
    modules = set(run(IMPORTED, *words).stderr.splitlines()[-1].split())
    assert {"measure.__main__", "numpy"} <= modules
    assert HEAVY & modules == set()


def test_only_the_module_of_the_given_command_is_imported():
    modules = run(IMPORTED, "client", "diff", "--help").stderr.split()
    ours = {command.module for command in COMMANDS} & set(modules)
    assert ours == {"measure.commands.diff"}


def test_what_is_not_installed_is_missed_when_it_is_used():
    absent = optional("absent_package.part", "dev", "--absent")
    with pytest.raises(MissingExtra) as missed:
        absent.anything()
    assert str(missed.value) == (
        "--absent needs the extra [dev]: run `pip install -e '.[dev]'` in the folder of "
        "argmax-serving (no module named 'absent_package')"
    )


def test_what_is_installed_is_what_it_is():
    assert optional("json", "dev", "it").loads("1") == 1
    assert imported("json", "dev", "it").loads("1") == 1


def test_a_missing_part_of_a_package_that_is_here_is_no_missing_extra():
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'json\.absent'") as missed:
        imported("json.absent", "dev", "it")
    assert not isinstance(missed.value, MissingExtra)
