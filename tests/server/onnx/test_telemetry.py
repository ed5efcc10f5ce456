"""ONNX Runtime keeps no record of its use."""

import os
import shutil
import subprocess
import sys

import pytest
from conftest import PATIENCE_S, ROOT

from model.export import export
from model.weights import from_seed


@pytest.fixture(scope="module")
def models(graphs):
    export(graphs.folder, "linear", from_seed(4, 8, 0), "float32", 0)
    return graphs.folder


@pytest.fixture
def home(tmp_path, monkeypatch):
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(folder))
    return folder


def test_a_server_writes_nothing_to_the_home_folder(launch, models, home):
    assert launch(models, validation=True).stop() == 0
    assert list(home.rglob("*")) == []


def test_a_session_of_the_model_writes_nothing_there_either(models, home):
    code = "import sys; from model.stored import ort; ort.InferenceSession(sys.argv[1])"
    graph = models / "linear" / "1" / "model.onnx"
    command = [sys.executable, "-c", code, graph]
    subprocess.run(command, cwd=ROOT, timeout=PATIENCE_S, check=True)
    assert list(home.rglob("*")) == []


def test_an_operator_may_decide_otherwise(home):
    code = "import os, server.onnx.engine; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "0"}
    said = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, env=environment)
    assert said == b"0\n"


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not here")
def test_no_host_is_looked_up_and_none_connected_to(models, home, tmp_path):
    code = (
        "import sys; from pathlib import Path; from server.onnx.engine import Engine;"
        "Engine(Path(sys.argv[1]), 1).close()"
    )
    calls = tmp_path / "calls"
    graph = models / "linear" / "1" / "model.onnx"
    before = ("strace", "--follow-forks", "--trace=connect,sendto,sendmmsg", "-o", calls)
    done = subprocess.run([*before, sys.executable, "-c", code, graph], cwd=ROOT, check=False)
    if done.returncode:
        pytest.skip("processes cannot be traced here")
    assert [line for line in calls.read_text().splitlines() if "AF_INET" in line] == []
    assert list(home.rglob("*")) == []
