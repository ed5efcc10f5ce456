"""The server reports to a supervisor that it serves, and that it stops."""

import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PATIENCE_S, ROOT

from model.export import export
from model.weights import from_seed

UNIT = ROOT / "deploy" / "systemd" / "argmax-serving.service"
ANALYZE = shutil.which("systemd-analyze")
needs_analyze = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")


@pytest.fixture(scope="module")
def models(graphs):
    export(graphs.folder, "linear", from_seed(4, 8, 0), "float32", 0)
    return graphs.folder


@pytest.fixture
def supervisor(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.settimeout(PATIENCE_S)
        yield receiver


@pytest.mark.parametrize("kind", ["file", "abstract"])
def test_a_supervisor_hears_of_readiness_and_of_the_end(
    launch, models, supervisor, tmp_path, monkeypatch, kind
):
    name = str(tmp_path / "notify")
    supervisor.bind(name if kind == "file" else f"\0{name}")
    monkeypatch.setenv("NOTIFY_SOCKET", name if kind == "file" else f"@{name}")
    process = launch(models)
    assert supervisor.recv(100) == b"READY=1"
    assert process.stop() == 0
    assert supervisor.recv(100) == b"STOPPING=1"
    supervisor.setblocking(False)
    with pytest.raises(BlockingIOError):
        supervisor.recv(100)


def test_a_supervisor_that_is_not_there_is_logged_and_the_server_serves(
    launch, models, tmp_path, monkeypatch, call
):
    name = str(tmp_path / "nobody")
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    process = launch(models)
    assert call(process.address).health() == "SERVING"
    assert process.stop() == 0
    (line, _) = (line for line in process.said() if "supervisor not notified" in line)
    assert name in line


def test_a_server_that_cannot_start_is_never_ready(supervisor, tmp_path, monkeypatch, models):
    name = str(tmp_path / "notify")
    supervisor.bind(name)
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    command = [sys.executable, "-m", "server", "--models", models, "--address", "unix:/nowhere/s"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 2
    supervisor.setblocking(False)
    with pytest.raises(BlockingIOError):
        supervisor.recv(100)


@pytest.fixture
def unit(tmp_path):
    """The unit, with a program that is installed here."""
    text, count = re.subn(r"(?m)^ExecStart=\S+", f"ExecStart={sys.executable}", UNIT.read_text())
    assert count == 1
    path = tmp_path / UNIT.name
    path.write_text(text)
    return path


def analyze(*words):
    done = subprocess.run(
        [ANALYZE, *map(str, words)], capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout + done.stderr


@needs_analyze
def test_systemd_accepts_the_unit(unit):
    code, said = analyze("verify", "--recursive-errors=no", unit)
    assert (code, said) == (0, "")


@needs_analyze
def test_systemd_finds_a_directive_that_it_does_not_know(unit):
    unit.write_text(unit.read_text().replace("[Service]\n", "[Service]\nProtectSytem=strict\n"))
    _, said = analyze("verify", "--recursive-errors=no", unit)
    assert "ProtectSytem" in said


@needs_analyze
def test_the_unit_is_exposed_as_little_as_the_page_says(unit):
    code, said = analyze("security", "--offline=true", unit)
    (score,) = re.findall(r"Overall exposure level for \S+: ([0-9.]+)", said)
    page = (ROOT / "docs" / "operations.md").read_text()
    (documented,) = re.findall(r"exposure level of ([0-9.]+)", page)
    assert code == 0
    # Later versions of systemd know more directives, and weigh them.
    assert float(score) <= float(documented) + 0.5


def test_the_unit_gives_the_server_longer_than_its_grace_period():
    text = UNIT.read_text()
    (grace_s,) = map(int, re.findall(r"--grace-s (\d+)", text))
    (stop_s,) = map(int, re.findall(r"(?m)^TimeoutStopSec=(\d+)", text))
    assert stop_s >= grace_s + 5


def test_the_folder_of_the_unit_is_where_the_page_says():
    page = (ROOT / "docs" / "operations.md").read_text()
    assert Path(UNIT).relative_to(ROOT).as_posix() in page
