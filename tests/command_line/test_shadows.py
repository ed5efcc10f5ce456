import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SCRIPTS = PROJECT["project"]["scripts"]
PACKAGES = {name for name in PROJECT["tool"]["setuptools"]["packages"] if "." not in name}
SMALL = ["--features", "8", "--classes", "2"]
QUICK = ["--concurrency", "1", "--warm-up-s", "0.1", "--window-s", "0.2", "--max-windows", "3"]


@pytest.fixture
def folder(tmp_path):
    """A working directory with modules of the user's own that are called as ours are."""
    here = tmp_path / "here"
    here.mkdir()
    for name in PACKAGES:
        (here / f"{name}.py").write_text("raise SystemExit('a module of the user was run')")
    return here


def run(folder, *words):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.fixture
def script(folder, tmp_path):
    """Run a script that pip would install, as the one below `bin` of an environment."""

    def run_script(name, *words):
        module, _, function = SCRIPTS[name].partition(":")
        path = tmp_path / name
        path.write_text(f"import sys\nfrom {module} import {function}\nsys.exit({function}())\n")
        return run(folder, path, *words)

    return run_script


def test_scripts_work_beside_modules_of_the_same_names(script, folder):
    assert set(SCRIPTS) == {"argmax-model", "argmax-server", "argmax-client"}
    made = script("argmax-model", "export", "--out", "models", *SMALL)
    assert (made.returncode, made.stderr) == (0, "")
    assert script("argmax-server", "--list-ep").returncode == 0
    told = script("argmax-client", "predict", "--help")
    assert (told.returncode, told.stderr) == (0, "")


@pytest.mark.slow
def test_processes_that_a_script_starts_do_so_too(script, folder):
    # This exports a model, starts a server that tries it, and processes that send.
    load = script("argmax-client", "load", "--out", "load", *SMALL, *QUICK)
    assert load.returncode == 0, load.stderr
    assert (folder / "load" / "load.json").exists()


@pytest.mark.parametrize("module", ["client", "server", "model"])
def test_python_can_be_told_not_to_look_in_the_working_directory(folder, module):
    assert "a module of the user was run" in run(folder, "-m", module, "--help").stderr
    told = run(folder, "-P", "-m", module, "--help")
    assert (told.returncode, told.stderr) == (0, "")
    assert f"usage: argmax-{module}" in told.stdout
