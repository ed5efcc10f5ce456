"""The image of `make image`: built, unpacked and run as its own configuration says."""

import json
import shutil
import signal
import subprocess
import sys
import tempfile
from types import SimpleNamespace

import containers
import numpy as np
import psutil
import pytest
from conftest import PATIENCE_S, ROOT
from http_pages import get

from model.export import export
from model.weights import from_seed

PYTHON = ROOT / ".venv-deploy" / "bin" / "python"
CONTAINERFILE = ROOT / "deploy" / "Containerfile"
PYTHON_OF_IMAGE = (3, 11)
TOOLS = ("mmdebstrap", "umoci")
CLASSES, FEATURES = 4, 8
READ_BY_ALL = 0o755
SET_ID, WRITABLE_FOR_OTHERS, EXECUTABLE = 0o6000, 0o022, 0o111
BUILD_S = 900
LABEL = "org.opencontainers.image."
NOT_COMPILED = """
import os, sys, server.app.command, onnxruntime
print([m.__name__ for m in list(sys.modules.values())
       if getattr(m, "__cached__", None) and not os.path.exists(m.__cached__)])
"""
DISTRIBUTIONS = """
import importlib.metadata
for each in importlib.metadata.distributions():
    print(each.name.lower().replace("_", "-"), each.version)
"""


def why_not():
    """Why no image can be built or run here; an empty text where it can be."""
    if missing := [name for name in TOOLS if shutil.which(name) is None]:
        return f"not installed: {', '.join(missing)}, of Debian's packages of that name"
    if sys.version_info[:2] != PYTHON_OF_IMAGE:
        return "not Python 3.11, the version in the image"
    if not PYTHON.is_file():
        return "no .venv-deploy, which `make deploy-check` makes"
    return containers.why_not() or ""


pytestmark = [pytest.mark.slow, pytest.mark.timeout(2 * BUILD_S)]
if reason := why_not():
    # One line of pytest's summary for all tests; skipif, or a skip in a fixture, has one for each.
    pytestmark.append(pytest.mark.skip(reason=reason))


def build(out):
    """Build an image; its digest."""
    done = subprocess.run(
        [PYTHON, "-m", "deploy.image.build", "--out", out],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=BUILD_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """An image, and how its parts can be read."""
    out = tmp_path_factory.mktemp("image")
    digest = build(out)
    layout = out / "argmax-serving"
    (manifest,) = json.loads((layout / "index.json").read_text())["manifests"]
    tag = manifest["annotations"]["org.opencontainers.image.ref.name"]
    bundle = out / "bundle"
    subprocess.run(["umoci", "unpack", "--image", f"{layout}:{tag}", bundle], check=True)
    out.chmod(READ_BY_ALL)

    def blob(digest):
        return json.loads((layout / "blobs" / digest.replace(":", "/")).read_text())

    config = blob(blob(manifest["digest"])["config"]["digest"])
    yield SimpleNamespace(
        out=out, digest=digest, manifest=manifest, tag=tag, bundle=bundle, config=config
    )
    shutil.rmtree(out)


@pytest.fixture(scope="module")
def models(graphs):
    export(graphs.folder, "linear", from_seed(CLASSES, FEATURES, 0), "float32", 0)
    graphs.folder.chmod(READ_BY_ALL)
    return graphs.folder


@pytest.fixture
def run(image, models, tmp_path):
    """Run Python code in the image; the lines that it prints."""

    def run(code):
        before, (python, *_) = containers.of_image(image.bundle, models, tmp_path)
        done = subprocess.run(
            [*before, python, "-c", code],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S * 4,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return run


def test_its_configuration_is_that_of_a_server(image):
    config = image.config["config"]
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["/opt/argmax-serving/bin/python", "-m", "server"]
    assert config["StopSignal"] == "SIGTERM"
    assert set(config["ExposedPorts"]) == {"8001/tcp", "8002/tcp"}
    assert {
        "ARGMAX_SERVER_MODELS=/models",
        "ARGMAX_SERVER_ADDRESS=0.0.0.0:8001",
        "ARGMAX_SERVER_METRICS_ADDRESS=0.0.0.0:8002",
    } <= set(config["Env"])
    assert image.digest == image.manifest["digest"]
    assert config["Labels"][f"{LABEL}version"] == image.tag
    head = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=ROOT, text=True).strip()
    assert config["Labels"][f"{LABEL}revision"].removesuffix("-dirty") == head


def test_the_containerfile_makes_the_same_configuration(image):
    text = CONTAINERFILE.read_text()
    config = image.config["config"]
    lines = [f"USER {config['User']}", f"STOPSIGNAL {config['StopSignal']}"]
    lines += [f"ENTRYPOINT {json.dumps(config['Entrypoint'])}", f"WORKDIR {config['WorkingDir']}"]
    lines += [f"EXPOSE {' '.join(sorted(config['ExposedPorts']))}"]
    assert [line for line in lines if line not in text.splitlines()] == []
    variables = text[text.index("ENV ") :].partition("WORKDIR")[0].replace("\\\n", " ").split()[1:]
    # umoci starts an image with PATH and TERM.
    assert set(variables) == set(config["Env"]) - {"TERM=xterm"}


def test_it_serves_as_its_user_and_drains(image, models, call, eventually, tmp_path):
    before, words = containers.of_image(image.bundle, models, tmp_path)
    options = ["--address", "127.0.0.1:0", "--metrics-address", "127.0.0.1:0"]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [*before, *words, *options], stdout=subprocess.PIPE, stderr=log, text=True
        )

        def said():
            log.seek(0)
            return log.read()

        try:
            address = process.stdout.readline().removeprefix("listening on ").strip()
            assert address, said()
            server = containers.process_1(psutil.Process(process.pid))
            assert server.uids() == (containers.UID,) * 3
            caller = call(address)
            message = caller.message("linear", x=np.ones((1, FEATURES), np.float32))
            assert int(caller.infer(message).outputs[0].data[0]) in range(CLASSES)
            (port,) = [
                line["address"]
                for line in map(json.loads, said().splitlines())
                if line["message"] == "management port"
            ]
            assert get(port, "/v2/health/ready")[0] == 200
            server.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 0, said()
        finally:
            process.kill()
            process.communicate()


def test_only_root_could_write_to_its_files_and_there_is_no_shell(image):
    files = [path for path in (image.bundle / "rootfs").rglob("*") if not path.is_symlink()]
    assert len(files) > 1000
    programs = [path.name for path in files if path.is_file() and path.stat().st_mode & EXECUTABLE]
    assert "python3.11" in programs
    assert {"sh", "bash", "dash", "apt", "dpkg", "pip"} & set(programs) == set()
    forbidden = SET_ID | WRITABLE_FOR_OTHERS
    assert [path for path in files if path.stat().st_mode & forbidden] == []
    assert {path.stat().st_uid for path in files} == {0}


def test_all_modules_that_a_server_imports_are_compiled(run):
    assert run(NOT_COMPILED) == ["[]"]


def test_it_holds_nothing_of_the_machine_that_built_it(image):
    etc = {path.name for path in (image.bundle / "rootfs" / "etc").iterdir()}
    assert etc == {"group", "os-release", "passwd"}
    for name in ("argmax-server", "argmax-model", "argmax-client"):
        script = image.bundle / "rootfs" / "opt" / "argmax-serving" / "bin" / name
        assert script.read_text().startswith("#!/opt/argmax-serving/bin/python\n")


def test_the_sbom_has_all_packages_and_no_other(image, run):
    components = json.loads((image.out / "sbom.cdx.json").read_text())["components"]
    kinds = {"pkg:pypi": set(), "pkg:deb": set()}
    for each in components:
        name = each["name"].lower().replace("_", "-")
        kinds[each["purl"].partition("/")[0]].add(f"{name} {each['version']}")
    project = f"argmax-serving {image.tag}"
    assert kinds["pkg:pypi"] == set(run(DISTRIBUTIONS)) - {project}
    status = image.bundle / "rootfs" / "var" / "lib" / "dpkg" / "status.d"
    assert {name.split()[0] for name in kinds["pkg:deb"]} == {p.name for p in status.iterdir()}
    assert len(kinds["pkg:deb"]) > 10


def test_a_second_build_has_the_same_digest(image, tmp_path):
    assert build(tmp_path) == image.digest
    for name in ("sbom.cdx.json", "constraints.txt"):
        assert (tmp_path / name).read_text() == (image.out / name).read_text()
