"""A user's own project, which is type-checked strictly against the client as it is shipped."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typed_program import RIGHT

ROOT = Path(__file__).resolve().parents[2]

WRONG = {
    "client.predict({1.5})": "arg-type",
    'client.predict(x, outputs="label")': "call-arg",
    "client.infer(x)": "arg-type",
    'response: str = client.infer({"x": x})': "assignment",
    'client.infer({"x": x})[0]': "index",
    "client.stream(5)": "arg-type",
    "Client(8001)": "arg-type",
    "client.predicted(x)": "attr-defined",
    "labels: list[int] = client.predict(x)": "assignment",
    "client.predict(x, timeout=5)": "call-arg",
    'client.predict(x, timeout_s="5")': "arg-type",
    'client.live(metadata={"name": "value"})': "arg-type",
    "labels = [AsyncClient('a:1').predict(x)][0] + 1": "operator",
}


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """Check a program in a folder of its own, as mypy sees installed packages; what it says."""
    folder = tmp_path_factory.mktemp("project")
    # As in site-packages: what is found over the interpreter's own path needs a py.typed.
    environment = os.environ | {"PYTHONPATH": str(ROOT)}

    def check(program):
        (folder / "program.py").write_text(program)
        command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(folder / "cache")]
        done = subprocess.run(
            [*command, "program.py"],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    return check


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_mypy_strict_passes_on_a_users_project(checked):
    code, said = checked(RIGHT)
    assert (code, said) == (0, "Success: no issues found in 1 source file\n")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_mypy_finds_a_wrong_use_of_the_client(checked):
    head = (
        "import numpy as np\nfrom client import AsyncClient, Client\n"
        'client = Client("a:1")\nx = np.zeros(2)\n'
    )
    code, said = checked(head + "\n".join(WRONG))
    assert code == 1
    first = head.count("\n") + 1
    for line, (statement, wanted) in enumerate(WRONG.items(), first):
        found = [text for text in said.splitlines() if text.startswith(f"program.py:{line}: error")]
        assert any(f"[{wanted}]" in text for text in found), (statement, said)


def test_the_packages_ship_their_marks_and_stubs():
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"][
        "package-data"
    ]
    for package in ("client", "protos", "transport"):
        assert (ROOT / package / "py.typed").is_file()
        assert "py.typed" in data[package]
    assert "*.pyi" in data["protos"]
