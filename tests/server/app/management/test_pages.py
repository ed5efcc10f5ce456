"""The pages of a real server: health, models, and who may see them."""

import json
import logging
import signal
import socket

import numpy as np
import pytest
from conftest import GROUP_ROWS, ROOT, SLICE_ROWS
from http_pages import get, get_json
from onnx import helper
from prometheus_client import CollectorRegistry

from server.app.config import Config
from server.app.management.pages import Pages
from server.app.management.port import ManagementPort
from server.app.server import Server

TOKEN = "a-token-that-may-infer"
CONTROL = "a-token-that-may-control"


@pytest.fixture(scope="module")
def models(graphs):
    graphs.add_steps()
    graphs.add(
        "two words",
        [helper.make_node("Neg", ["x"], ["y"])],
        {"x": ("float32", ["batch", 2])},
        {"y": ("float32", ["batch", 2])},
        version=7,
    )
    return graphs.folder


@pytest.fixture(scope="module")
def server(serve, models):
    return serve(models, metrics_address="127.0.0.1:0", group_rows=GROUP_ROWS)


@pytest.fixture(scope="module")
def address(server):
    return server._management.address


def management_address(process, eventually):
    """Where the port of a server's process listens, as it logs."""

    def logged():
        lines = [json.loads(line) for line in process.said() if line.startswith("{")]
        return [line["address"] for line in lines if line["message"] == "management port"]

    return eventually(logged, "the management port is there")[0]


def test_a_server_that_serves_is_live_and_ready(address):
    assert get_json(address, "/v2/health/live") == (200, {"live": True})
    assert get_json(address, "/v2/health/ready") == (200, {"ready": True})
    assert get(address, "/v2/health/ready", method="HEAD")[0] == 200


def test_models_are_described_as_by_their_rpcs(address, call, server):
    caller = call(server.address)
    status, shown = get_json(address, "/v2")
    assert (status, shown["name"]) == (200, "argmax-serving")
    status, shown = get_json(address, "/v2/models/two%20words")
    assert status == 200
    assert (shown["name"], shown["versions"]) == ("two words", ["7"])
    assert shown["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]
    config = caller.control("ModelConfig", name="two words").config
    status, shown = get_json(address, "/v2/models/two%20words/versions/7/config")
    assert (status, shown["max_batch_size"]) == (200, config.max_batch_size)
    assert shown["input"][0]["data_type"] == "TYPE_FP32"
    assert shown["input"][0]["dims"] == [2]
    assert set(shown["parameters"]) == set(config.parameters)
    caller.infer(caller.message("two words", x=np.ones((3, 2), np.float32)))
    (statistics,) = get_json(address, "/v2/models/two%20words/stats")[1]["model_stats"]
    expected = caller.statistics("two words")
    assert statistics["inference_count"] == expected.inference_count == 3
    assert statistics["inference_stats"]["success"]["ns"] == expected.inference_stats.success.ns
    assert statistics["batch_stats"][0]["batch_size"] == 3


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v2/models/steps/ready", 200),
        ("/v2/models/steps/versions/1/ready", 200),
        ("/v2/models/steps/versions/2/ready", 404),
        ("/v2/models/steps/versions/x", 400),
        ("/v2/models/none", 404),
        ("/v2/models/none/ready", 404),
        ("/v2/models/", 404),
        ("/v2/models/steps/infer", 404),
        ("/v2/models/steps/versions", 404),
        ("/v2/models/steps/versions/1/config/more", 404),
        ("/v2/models", 404),
        ("/v2/", 404),
        ("/", 404),
        ("/metrics/", 404),
        ("/../metrics", 404),
    ],
)
def test_paths_outside_the_table_have_no_page(address, path, status):
    assert get(address, path)[0] == status


def test_nothing_can_be_changed(address):
    for path in ("/metrics", "/v2", "/v2/health/ready", "/v2/models/steps"):
        for method in ("POST", "PUT", "DELETE"):
            assert get(address, path, method=method)[0] == 405
    assert get(address, "/v2/models/steps/infer", method="POST")[0] == 404


def test_the_port_answers_while_every_worker_is_busy(serve, models, call, eventually):
    server = serve(
        models, metrics_address="127.0.0.1:0", group_rows=GROUP_ROWS, workers=1, max_waiting=1
    )
    caller = call(server.address)
    steps = caller.message("steps", steps=np.zeros((1, 1), np.int64))
    with caller.busy_worker(executions=SLICE_ROWS * 10):
        waiting = caller.infer_later(steps)
        eventually(lambda: server._pools.unary.open == 2, "all places are taken")
        assert get(server._management.address, "/v2/health/ready")[0] == 200
        assert get(server._management.address, "/metrics")[0] == 200
        assert get(server._management.address, "/v2/models/steps/stats")[0] == 200
        waiting.cancel()


def test_until_the_models_are_loaded_the_server_is_live_and_not_ready(serve, models):
    server = serve(models)
    port = ManagementPort("127.0.0.1:0", "native", "CPUExecutionProvider")
    try:
        assert get(port.address, "/v2/health/live")[0] == 200
        assert get_json(port.address, "/v2/health/ready") == (503, {"ready": False})
        assert get(port.address, "/v2/models/steps")[0] == 503
        status, _, text = get(port.address, "/metrics")
        assert status == 200
        assert b"argmax_build_info{" in text
        assert b"nv_" not in text
        port._pages.serve(server._servicer, None)
        assert get(port.address, "/v2/health/ready")[0] == 200
        assert get(port.address, "/v2/models/steps")[0] == 200
    finally:
        port.close()


def test_a_process_that_drains_is_live_and_not_ready(launch, models, call, eventually):
    process = launch(models, "--metrics-address", "127.0.0.1:0", "--group-rows", GROUP_ROWS)
    address = management_address(process, eventually)
    caller = call(process.address)
    with caller.busy_worker(executions=20):
        process.popen.send_signal(signal.SIGTERM)
        eventually(lambda: get(address, "/v2/health/ready")[0] == 503, "it is not ready")
        assert get(address, "/v2/health/live")[0] == 200
        assert get(address, "/metrics")[0] == 200
    assert process.wait() == 0
    with pytest.raises(OSError):  # noqa: PT011  # refused or reset
        get(address, "/v2/health/live")


def test_the_port_is_open_before_the_models_are_loaded(monkeypatch, serve, models):
    seen = []

    def load(self, *_):
        (address,) = {port.address for port in ports}
        seen.extend(get(address, f"/v2/health/{what}")[0] for what in ("live", "ready"))
        raise RuntimeError("enough")

    ports = []
    made = ManagementPort.__init__

    def make(self, *arguments):
        made(self, *arguments)
        ports.append(self)

    monkeypatch.setattr(ManagementPort, "__init__", make)
    monkeypatch.setattr("server.app.server.Repository.__init__", load)
    with pytest.raises(RuntimeError, match="enough"):
        Server(Config(models=models, address="127.0.0.1:0", metrics_address="127.0.0.1:0"))
    assert seen == [200, 503]
    # And closed again, as the server has not started.
    with pytest.raises(OSError):  # noqa: PT011
        get(ports[0].address, "/v2/health/live")


def test_pages_of_models_need_the_token_that_their_rpcs_need(serve, models, tmp_path):
    file = tmp_path / "tokens"
    file.write_text(f"{TOKEN} infer\n{CONTROL} control\n")
    address = serve(models, metrics_address="127.0.0.1:0", token_file=file)._management.address
    for path in ("/v2", "/v2/models/steps", "/v2/models/steps/config", "/v2/models/steps/stats"):
        status, headers, _ = get(address, path)
        assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
        assert get(address, path, Authorization="Bearer wrong")[0] == 401
        assert get(address, path, Authorization=f"Bearer {CONTROL}")[0] == 403
        assert get(address, path, Authorization=f"Bearer {TOKEN}")[0] == 200
    # Probes and scrapes carry none.
    for path in ("/v2/health/live", "/v2/health/ready", "/metrics"):
        assert get(address, path)[0] == 200


def test_an_address_that_cannot_be_listened_on_is_refused_by_name(refusal, models):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for address, why in [
            (f"127.0.0.1:{port}", f"port {port} is in use"),
            ("127.0.0.1", "has no port, expected HOST:PORT"),
            (":8002", "has no host, expected one such as 127.0.0.1"),
            ("unix:/tmp/x", "got port '/tmp/x'"),
            ("http://127.0.0.1:8002/metrics", "is a URL, expected HOST:PORT: 127.0.0.1:8002"),
            ("127.0.0.1:99999", "got port '99999', expected a number from 0 to 65535"),
            ("203.0.113.7:8002", "203.0.113.7 is not an address of this host"),
        ]:
            line = refusal(
                "--models", models, "--address", "127.0.0.1:0", "--metrics-address", address
            )
            assert line.startswith("--metrics-address ")
            assert why in line


def test_an_address_that_others_can_reach_is_warned_of_once(serve, models, caplog):
    with caplog.at_level(logging.WARNING):
        serve(models, metrics_address="127.0.0.1:0")
    assert "open to the network" not in caplog.text
    with caplog.at_level(logging.WARNING):
        serve(models, metrics_address="0.0.0.0:0")
    assert caplog.text.count("metrics are open to the network") == 1


def test_the_port_is_off_by_default_and_there_with_either_transport(serve, models):
    assert serve(models)._management is None
    address = serve(models, metrics_address="127.0.0.1:0", transport="grpcio")._management.address
    assert get(address, "/v2/health/ready")[0] == 200
    text = get(address, "/metrics")[2].decode()
    assert "nv_inference_request_success{" in text
    # What only the project's own transport counts.
    assert "grpc_server_handled_total" not in text
    assert "argmax_connections_open" not in text


def test_a_page_of_an_unforeseen_name_is_not_found():
    pages = Pages(CollectorRegistry())
    assert pages.answer("/v2/models/%ff%00/ready", {}).status == 503
    assert pages.answer("no slash", {}) is None
    assert ROOT.name not in str(pages.answer("/%2e%2e/metrics", {}))
