"""The Kubernetes files: valid, and in accord with the image and with the server's own limits."""

import re
import subprocess

import pytest
from conftest import ROOT

from server.app.config import Config

VALIDATE = ROOT / ".venv-deploy" / "bin" / "kubernetes-validate"
FOLDER = ROOT / "deploy" / "kubernetes"
FILES = sorted(FOLDER.glob("*.yaml"))
DEPLOYMENT = FOLDER / "deployment.yaml"
MISTAKES = (
    ("readinessProbe:", "readynessProbe:", "'readynessProbe' was unexpected"),
    ("seconds: 5", "seconds: five", "'five' is not of type 'integer'"),
    ("kind: Deployment", "kind: Deploymint", "find schema for kind Deploymint"),
    ("apiVersion: apps/v1\n", "", "'apiVersion'"),
)
CHECK_S = 110

needs_schemas = pytest.mark.skipif(
    not VALIDATE.is_file(), reason="no .venv-deploy, which `make deploy-check` makes"
)


def complaints(*files):
    """Lines about resources that are not known to be valid, a kind without a schema included."""
    done = subprocess.run(
        [VALIDATE, "--strict", *files],
        capture_output=True,
        text=True,
        timeout=CHECK_S,
        check=False,
    )
    lines = (done.stdout + done.stderr).splitlines()
    assert lines, f"exit code {done.returncode}"
    return [line for line in lines if " passed for resource " not in line]


@needs_schemas
def test_all_files_are_valid():
    assert len(FILES) > 1
    assert complaints(*FILES) == []


@needs_schemas
def test_mistakes_are_found(tmp_path):
    text = DEPLOYMENT.read_text()
    expected = []
    for number, (right, wrong, complaint) in enumerate(MISTAKES):
        assert right in text
        file = tmp_path / f"{number}.yaml"
        file.write_text(text.replace(right, wrong))
        expected.append((file.name, complaint))
    lines = complaints(*(tmp_path / name for name, _ in expected))
    for name, complaint in expected:
        assert [line for line in lines if name in line and complaint in line], lines


def test_a_pod_has_the_time_that_its_server_may_take():
    text = DEPLOYMENT.read_text()

    def number(pattern):
        (found,) = re.findall(pattern, text)
        return int(found)

    grace = number(r'--grace-s, "(\d+)"')
    sleep = number(r"sleep:\n +seconds: (\d+)")
    assert number(r"terminationGracePeriodSeconds: (\d+)") == sleep + grace + 5


def test_the_options_of_a_pod_are_the_servers():
    (words,) = re.findall(r"args: \[(.*)\]", DEPLOYMENT.read_text())
    options = {each.removeprefix("--").replace("-", "_") for each in re.findall(r"--[\w-]+", words)}
    assert options
    assert options <= set(Config.__dataclass_fields__)
