"""A user's own project, which is type-checked strictly against the client as it is shipped."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

RIGHT = """
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client import (
    Client,
    ClientError,
    Credentials,
    DeadlineExceeded,
    InferResponse,
    OutputMissing,
    RequestFailed,
    RetryPolicy,
    Rows,
    Unavailable,
    Unreachable,
    UsageError,
)


class Tensor:
    def __array__(self) -> NDArray[np.float32]:
        return np.zeros((2, 3), np.float32)


def inputs() -> Iterator[Rows]:
    yield np.zeros((2, 3))
    yield [[1, 2, 3], [4.5, 5, 6]]
    yield [["text", b"bytes"]]
    yield Tensor()


def scores(client: Client, x: NDArray[np.float64]) -> float:
    response: InferResponse = client.infer({"x": x, "y": [1, 2]}, outputs=["scores"])
    if "scores" not in response:
        raise OutputMissing(", ".join(response.names))
    return float(response["scores"].max())


def names(client: Client) -> list[str]:
    return [tensor.name for tensor in client.metadata().inputs] + [client.default_output()]


def main() -> int:
    known = Credentials.of_files(ca=Path("ca.pem"), token=Path("token"))
    retry = RetryPolicy(attempts=2)
    try:
        with Client("127.0.0.1:8001", credentials=known, retry=retry, deadline_s=10) as client:
            client.wait_until_ready(5)
            labels = [client.predict(x) for x in inputs()]
            labels += client.stream(inputs())
            several = client.predict_outputs({"a": [[1]], "b": [[2]]}, ["sum", "less"])
            labels.append(several["sum"])
            count: int = client.statistics().execution_count
            return count + len(labels) + int(scores(client, np.ones((1, 3)))) + len(names(client))
    except Unreachable as error:
        return int(error.waiting_helps)
    except (DeadlineExceeded, Unavailable, RequestFailed) as error:
        return len(error.code + error.text)
    except (UsageError, ClientError):
        return 1
"""

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
        'import numpy as np\nfrom client import Client\nclient = Client("a:1")\nx = np.zeros(2)\n'
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
    for package in ("client", "protos"):
        assert (ROOT / package / "py.typed").is_file()
        assert "py.typed" in data[package]
    assert "*.pyi" in data["protos"]
