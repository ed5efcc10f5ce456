"""Install the tree with each extra in an environment of its own, and do what the extra is for.

These tests need a package index; pip's cache makes them quick.
"""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from docs_environment import copy_checkout, newcomers_variables
from typed_program import RIGHT

from model.export import export
from model.weights import from_seed

SMALL = ["--classes", "4", "--features", "16"]
X = np.random.default_rng(7).standard_normal((5, 16), dtype=np.float32)
LABELS = np.argmax(from_seed(4, 16, 0) @ X.T, axis=0).tolist()
COMMAND_S = 120
MOST_DISTRIBUTIONS = 5
# What pip warns of when it cannot reach the index, before it says that no version fits.
NO_INDEX = re.compile(r"connection broken by|Retrying \(Retry|Could not fetch URL")

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]


class Environment:
    """A virtual environment in which the wheel is installed with one extra, or none."""

    def __init__(self, folder, wheel, extra):
        self.folder = folder
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
        self.bin = folder / "venv" / "bin"
        pip("--python", self.bin / "python", "install", "--no-compile", f"{wheel}{extra}")

    def run(self, program, *words, code=0):
        """Run a program of the environment, away from the checkout; its stdout and stderr."""
        done = subprocess.run(
            [self.bin / program, *map(str, words)],
            cwd=self.folder,
            env=newcomers_variables(),
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
        assert done.returncode == code, done.stderr
        return done.stdout, done.stderr

    def python(self, source):
        """What a script prints."""
        return self.run("python", "-c", source)[0]

    def distributions(self):
        """Names of what is installed."""
        return self.python(
            "import importlib.metadata as m\nfor d in m.distributions(): print(d.name)"
        ).split()


def pip(*words):
    done = subprocess.run(
        [sys.executable, "-m", "pip", *map(str, words), "--retries", "1", "--quiet"],
        env=newcomers_variables(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0 and NO_INDEX.search(done.stderr):
        pytest.skip("there is no package index, which these tests need")
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    # setuptools leaves what it built in the folder that it builds from.
    copy_checkout(folder / "tree")
    pip("wheel", "--no-deps", "--wheel-dir", folder, folder / "tree")
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def install(wheel, tmp_path_factory):
    def install(extra):
        return Environment(tmp_path_factory.mktemp("environment"), wheel, extra)

    return install


@pytest.fixture(scope="module")
def base(install):
    return install("")


@pytest.fixture(scope="module")
def with_server(install):
    return install("[server]")


@pytest.fixture(scope="module")
def with_all(install):
    return install("[all]")


@pytest.fixture(scope="module")
def address(serve, tmp_path_factory):
    """Where a server of this environment listens."""
    models = tmp_path_factory.mktemp("models")
    export(models, "linear_argmax", from_seed(4, 16, 0), "float32", 0)
    return serve(models).address


def predicted(environment, address):
    """Labels by the library, then by the command line."""
    np.save(environment.folder / "X.npy", X)
    script = (
        "import numpy as np\n"
        "from client import Client\n"
        f"with Client({address!r}) as client:\n"
        "    print(*client.predict(np.load('X.npy')))"
    )
    shown, said = environment.run(
        "argmax-client", "predict", "--address", address, "--input", "X.npy"
    )
    assert said == ""
    return [[int(word) for word in text.split()] for text in (environment.python(script), shown)]


def test_the_base_is_the_client_and_little_else(base, address):
    distributions = base.distributions()
    assert "argmax-serving" in distributions
    assert len(distributions) <= MOST_DISTRIBUTIONS, distributions
    assert "grpcio" not in distributions
    base.python("from client import Client")
    assert predicted(base, address) == [LABELS, LABELS]


def test_the_base_probes(base, address):
    assert base.run("argmax-client", "health", "--address", address) == ("ready\n", "")


def test_a_program_is_checked_against_the_types_of_the_base(base):
    (base.folder / "program.py").write_text(RIGHT)
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", base.folder / "cache"]
    done = subprocess.run(
        [*command, "--python-executable", base.bin / "python", "program.py"],
        cwd=base.folder,
        env=newcomers_variables(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "Success: no issues found in 1 source file\n"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["python", "-m", "client", "sweep"],
            "argmax-client: error: sweep needs the extra [measure]",
        ),
        (["argmax-client", "loadgen"], "argmax-client: error: loadgen needs the extra [loadgen]"),
        (["python", "-m", "server"], "argmax-server: error: serving needs the extra [server]"),
        (["argmax-model", "export"], "argmax-model: error: this command needs the extra [server]"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_the_base_names_the_extra_that_a_command_needs(base, words, line):
    out, err = base.run(*words, code=2)
    assert out == ""
    assert err.startswith(f"{line}: run `pip install ")
    assert err.count("\n") == 1


def test_the_base_explains_itself(base):
    assert "compare and report" in base.run("python", "-m", "client", "--help")[0]
    assert "--models" in base.run("argmax-server", "--help")[0]


def test_the_server_exports_serves_and_drains(with_server):
    models = with_server.folder / "models"
    with_server.run("python", "-m", "model", "export", "--out", models, *SMALL)
    with_server.run("argmax-model", "inspect", models, "--html", with_server.folder / "page.html")
    assert "cpu" in with_server.run("argmax-server", "--list-ep")[0]
    command = [with_server.bin / "argmax-server", "--models", models, "--address", "127.0.0.1:0"]
    with subprocess.Popen(
        command, env=newcomers_variables(), stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            address = server.stdout.readline().removeprefix("listening on ").strip()
            assert predicted(with_server, address) == [LABELS, LABELS]
        finally:
            server.send_signal(signal.SIGTERM)
        assert server.wait(COMMAND_S) == 0
    _, err = with_server.run("argmax-client", "report", "results", code=2)
    assert "report needs the extra [measure]" in err


def test_all_measures_from_end_to_end(with_all):
    quick = ["--warm-up", "0.1", "--window", "0.2", "--max-windows", "3"]
    with_all.run(
        *("argmax-client", "sweep", "--out", "sweep", *SMALL),
        *("--batch-sizes", "1", "--examples", "8", "--repeats", "1", "--modes", "local,unary"),
    )
    with_all.run("argmax-client", "load", "--concurrency", "1", "--out", "load", *SMALL, *quick)
    with_all.run("argmax-client", "report", "sweep", "load", "--out", "page.html")
    points = json.loads((with_all.folder / "sweep" / "sweep.json").read_text())["points"]
    assert [point["wrong_labels"] for point in points] == [0, 0]
    assert Path(with_all.folder, "page.html").stat().st_size > 0
