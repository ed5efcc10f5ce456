"""`python -m client health`, as a probe runs it."""

import signal
import socket
import subprocess
import sys

import pytest
from certificates import Authority
from conftest import ROOT
from in_process import run

from measure.__main__ import main
from model.export import export
from model.weights import from_seed

# Of modules that a probe must not wait for.
HEAVY = {"grpc", "onnx", "onnxruntime", "rich", "matplotlib", "scipy", "asyncio", "plotly"}


@pytest.fixture(scope="module")
def models(graphs):
    export(graphs.folder, "linear_argmax", from_seed(2, 16, 0), "float32", 0)
    return graphs.folder


@pytest.fixture(scope="module")
def address(serve, models):
    return serve(models).address


def health(*words):
    """The exit code, and what is said."""
    done = run(main, "health", *words)
    assert done.stdout.count("\n") + done.stderr.count("\n") == 1
    return done.returncode, done.stdout.strip() or done.stderr.strip()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 0, "ready"),
        (["--live"], 0, "live"),
        (["--model", "linear_argmax"], 0, "ready"),
        (["--model", "linear_argmax", "--version", "1"], 0, "ready"),
        (["--model", "linear_argmax", "--version", "9"], 1, "not ready"),
        (["--model", "nobody"], 1, "not ready"),
    ],
    ids=str,
)
def test_a_server_is_probed(address, words, code, said):
    assert health("--address", address, *words) == (code, said)


def test_a_server_that_does_not_answer_is_not_ready(launch, models):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        code, said = health("--address", f"127.0.0.1:{probe.getsockname()[1]}")
        assert (code, said.startswith("not ready: UNAVAILABLE: cannot connect to")) == (1, True)
    process = launch(models)
    process.freeze()
    code, said = health("--address", process.address, "--timeout-s", "0.3")
    assert (code, said.startswith("not ready: ")) == (1, True)
    process.popen.send_signal(signal.SIGCONT)
    assert health("--address", process.address) == (0, "ready")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--live", "--model", "m"], "got --live with --model"),
        (["--version", "1"], "got --version without --model"),
        (["--timeout-s", "0"], "expected seconds over 0"),
        (["--tls-ca", "missing.pem"], "missing.pem"),
    ],
    ids=str,
)
def test_what_does_not_go_together_is_a_wrong_option(address, words, said):
    code, line = health("--address", address, *words)
    assert code == 2
    assert said in line


def test_each_of_several_servers_is_probed(serve, models, address, unused_address):
    other = serve(models).address
    done = run(main, "health", "--address", f"{address},{other}")
    lines = [f"{address}: ready", f"{other}: ready"]
    assert (done.returncode, done.stdout.splitlines()) == (0, lines)
    words = ["--address", address, "--address", unused_address, "--live"]
    done = run(main, "health", *words)
    first, second = done.stdout.splitlines()
    assert (done.returncode, first) == (1, f"{address}: live")
    assert second.startswith(f"{unused_address}: not ready: UNAVAILABLE: cannot connect to")


@pytest.fixture
def unused_address():
    """An address that is taken, where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{probe.getsockname()[1]}"


def test_an_address_is_required():
    assert health()[0] == 2


def test_tls_and_unix_sockets_are_probed(serve, models, tmp_path):
    authority = Authority(tmp_path / "tls")
    certificate, key = authority.sign("server")
    tls = serve(models, tls_cert=certificate, tls_key=key).address
    assert health("--address", tls, "--tls-ca", authority.certificate) == (0, "ready")
    assert health("--address", tls)[0] == 1
    unix = serve(models, address=f"unix:{tmp_path}/s").address
    assert health("--address", unix) == (0, "ready")


def test_a_model_behind_tokens_needs_one(serve, models, tmp_path):
    (tmp_path / "tokens").write_text("secret-token-of-a-probe infer\n")
    (tmp_path / "token").write_text("secret-token-of-a-probe\n")
    (tmp_path / "tokens").chmod(0o600)
    address = serve(models, token_file=tmp_path / "tokens").address
    assert health("--address", address) == (0, "ready")
    words = ["--address", address, "--model", "linear_argmax"]
    code, said = health(*words)
    assert (code, said.startswith("not ready: UNAUTHENTICATED: ")) == (1, True)
    assert health(*words, "--token-file", tmp_path / "token") == (0, "ready")


def test_a_probe_imports_the_client_alone(address):
    script = (
        "import sys; from measure.__main__ import main\n"
        f"code = main(['health', '--address', {address!r}])\n"
        "print(code, *sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True
    )
    said, line = done.stdout.splitlines()
    code, *modules = line.split()
    assert (said, code) == ("ready", "0")
    assert HEAVY & set(modules) == set()
