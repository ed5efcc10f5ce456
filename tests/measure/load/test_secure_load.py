"""Loads of a server that wants TLS, a client certificate and a token."""

import json
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import psutil
import pytest
from certificates import Authority

from measure.__main__ import main
from model.export import export
from model.weights import from_seed

CLASSES, FEATURES = 4, 8
TOKEN, WRONG = "token-that-may-infer", "token-that-nobody-has"
SHORT = ["--warm-up-s", "0.05", "--window-s", "0.1", "--max-windows", "1"]
LOAD = ["load", *SHORT, "--concurrency", "2"]
SLO = ["slo", *SHORT, "--p99-ms", "10000", "--start", "200", "--most", "200"]
PLAN = ["plan", "--rate", "1000", "--p99-ms", "10000", "--seconds", "0.3"]
LOADGEN = ["loadgen", "--quick", "0.2", "--scenario", "SingleStream", "--features", str(FEATURES)]
LOADGEN += ["--examples", "16"]

needs_loadgen = pytest.mark.skipif(
    find_spec("mlperf_loadgen") is None, reason="the extra [loadgen] is not installed"
)
FORMS = [
    pytest.param(LOAD, id="load"),
    pytest.param(SLO, id="slo"),
    pytest.param(PLAN, id="plan"),
    pytest.param(LOADGEN, id="loadgen", marks=needs_loadgen),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the certificates, keys and tokens are."""
    folder = tmp_path_factory.mktemp("secure")
    authority = Authority(folder / "tls")
    for name in ("server", "client"):
        authority.sign(name)
    (folder / "tokens").write_text(f"{TOKEN} infer\n")
    (folder / "token").write_text(f"{TOKEN}\n")
    (folder / "wrong").write_text(f"{WRONG}\n")
    return folder


@pytest.fixture(scope="module")
def address(folder, graphs, launch_for_module):
    export(graphs.folder, "linear_argmax", from_seed(CLASSES, FEATURES, 0), "float32", 0)
    options = {"cert": "tls/server.pem", "key": "tls/server.key", "client-ca": "tls/ca.pem"}
    words = [word for name, path in options.items() for word in (f"--tls-{name}", folder / path)]
    words += ["--token-file", folder / "tokens"]
    return launch_for_module(graphs.folder, *words).address


@pytest.fixture
def secure(address, folder, tmp_path, monkeypatch):
    """Run a command against the server, with files that are named from where they are."""
    monkeypatch.chdir(folder)
    # A p99 of 69 samples is worth little, and takes a busy machine less than a second.
    monkeypatch.setattr("measure.core.confidence.CONFIDENCE", 0.5)

    def run(words, token="token"):
        files = ["--tls-ca", "tls/ca.pem", "--tls-cert", "tls/client.pem"]
        files += ["--tls-key", "tls/client.key", "--token-file", token]
        more = ["--address", address, "--classes", str(CLASSES), "--out", str(tmp_path)]
        return main([*words, *more, *files])

    return run


@pytest.fixture
def check_secrets(folder, tmp_path):
    """Check that what is secret is in no result, nor in `others`."""

    def check(*others):
        lines = (folder / "tls/client.key").read_text().splitlines()
        secrets = [TOKEN, *(line for line in lines if not line.startswith("-----"))]
        written = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        assert written
        for secret in secrets:
            assert [path for path, data in written.items() if secret.encode() in data] == []
            assert [text for text in others if secret in text] == []

    return check


def told_to_others(of):
    """Command lines and environments of all processes that a process started."""
    for child in of.children(recursive=True):
        try:
            yield from (" ".join(child.cmdline()), str(child.environ()))
        except psutil.Error:
            continue  # it has ended


def test_a_load_makes_itself_known_in_every_process(secure, tmp_path, check_secrets, capsys):
    told = set()
    with ThreadPoolExecutor(1) as pool:
        code = pool.submit(secure, [*LOAD, "--modes", "unary,stream", "--processes", "2"])
        while not code.done():
            told.update(told_to_others(psutil.Process()))
    printed, complaints = capsys.readouterr()
    assert code.result() == 0, complaints
    assert any("measure.engine.worker" in text for text in told)
    check_secrets(*told, printed)
    record = json.loads((tmp_path / "load.json").read_text())
    assert [point["asked"]["mode"] for point in record["points"]] == ["unary", "stream"]
    for point in record["points"]:
        assert (point["errors"], point["wrong_labels"]) == ({}, 0)
        assert point["latency_ns"]["samples"] > 0


def test_a_record_names_the_files(secure, folder, tmp_path):
    assert secure(LOAD) == 0
    settings = json.loads((tmp_path / "load.json").read_text())["settings"]
    assert settings["credential_files"] == {
        "ca": str(folder / "tls/ca.pem"),
        "certificate": str(folder / "tls/client.pem"),
        "key": str(folder / "tls/client.key"),
        "token": str(folder / "token"),
    }


def test_a_rate_within_a_bound_is_looked_for(secure, tmp_path, check_secrets):
    secure(SLO)
    record = json.loads((tmp_path / "slo.json").read_text())
    assert record["points"]
    for point in record["points"]:
        assert (point["errors"], point["wrong_labels"]) == ({}, 0)
    check_secrets()


@needs_loadgen
@pytest.mark.parametrize("transport", ["stream", pytest.param("unary", marks=pytest.mark.slow)])
def test_loadgen_drives_it(secure, tmp_path, check_secrets, transport):
    secure([*LOADGEN, "--transport", transport])
    (result,) = json.loads((tmp_path / "loadgen.json").read_text())["results"]
    assert result["failures"] == {}
    assert (result["accuracy"]["rows"], result["accuracy"]["wrong"]) == (16, 0)
    check_secrets()


@pytest.mark.parametrize("words", FORMS)
def test_a_wrong_token_is_one_line(secure, capsys, words):
    assert secure(words, token="wrong") == 1
    *_, line = capsys.readouterr().err.splitlines()
    assert "UNAUTHENTICATED" in line
    assert WRONG not in line


@pytest.mark.parametrize("words", FORMS)
@pytest.mark.parametrize("flag", ["--tls-ca", "--tls-cert", "--tls-key", "--token-file"])
def test_a_server_of_ones_own_takes_no_credentials(tmp_path, capsys, words, flag):
    assert main([*words, flag, "some-file", "--out", str(tmp_path / "out")]) == 2
    assert "got --tls-* or --token-file without --address" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
