"""The dashboard, the alerts and Triton's queries: by a real server and a real Prometheus."""

import contextlib
import json
import re
import shutil
import socket
import subprocess
import threading
import urllib.parse

import grpc
import numpy as np
import pytest
from conftest import ROOT
from http_pages import get, scrape
from onnx import helper

DASHBOARD = ROOT / "deploy" / "grafana" / "dashboard.json"
PROMETHEUS = ROOT / "deploy" / "prometheus"
ALERTS = PROMETHEUS / "alerts.yml"
TARGET = "127.0.0.1:8002"
MODEL = "linear"
# As Triton's dashboards and scaling rules have them.
TRITON = {
    "successes": "sum by (model) (rate(nv_inference_request_success[1m]))",
    "failures": "sum by (model) (rate(nv_inference_request_failure[1m]))",
    "failures by reason": "sum by (reason) (rate(nv_inference_request_failure[1m]))",
    "inferences": "sum by (model, version) (rate(nv_inference_count[1m]))",
    "executions": "sum by (model) (rate(nv_inference_exec_count[1m]))",
    "mean batch": "rate(nv_inference_count[1m]) / rate(nv_inference_exec_count[1m])",
    "mean time": "rate(nv_inference_request_duration_us[1m]) "
    "/ rate(nv_inference_request_success[1m])",
    "mean queue time": "rate(nv_inference_queue_duration_us[1m]) "
    "/ rate(nv_inference_request_success[1m])",
    "mean input time": "rate(nv_inference_compute_input_duration_us[1m]) "
    "/ rate(nv_inference_request_success[1m])",
    "mean compute time": "rate(nv_inference_compute_infer_duration_us[1m]) "
    "/ rate(nv_inference_request_success[1m])",
    "mean output time": "rate(nv_inference_compute_output_duration_us[1m]) "
    "/ rate(nv_inference_request_success[1m])",
    "share of failures": "sum(rate(nv_inference_request_failure[1m])) "
    "/ (sum(rate(nv_inference_request_success[1m])) + sum(rate(nv_inference_request_failure[1m])))",
    "cumulative queue time": 'sum(nv_inference_queue_duration_us{model="linear"}) / 1000',
    "pending": "sum by (model) (nv_inference_pending_request_count)",
    "longest load": "max(nv_model_load_duration_secs)",
}
_NAME = re.compile(r"\b(?:nv|argmax|grpc|process|up)(?:_\w+)?\b")
_STRING = re.compile(r'"[^"]*"')


def dashboard_queries():
    """Every expression of the dashboard, with its variables filled in."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel["targets"]:
            filled = target["expr"].replace("$__rate_interval", "1m").replace("$model", ".*")
            assert "$" not in filled
            yield filled


def alert_queries():
    """Every expression of the alerts."""
    found = re.findall(r"expr: (?:>-\n((?: {10}.*\n)+)|(.*)\n)", ALERTS.read_text())
    return [" ".join((folded or plain).split()) for folded, plain in found]


def scaling_queries():
    """Every expression, or name of a metric, that an autoscaler of Kubernetes asks for."""
    files = sorted((ROOT / "deploy" / "kubernetes").rglob("*.yaml"))
    text = "\n".join(file.read_text() for file in files)
    return re.findall(r"query: (.*)", text) + re.findall(r"metric:\n +name: (.*)", text)


@pytest.fixture(scope="module")
def server(serve, graphs):
    graphs.add(
        MODEL,
        [helper.make_node("Neg", ["x"], ["y"])],
        {"x": ("float32", ["batch", 2])},
        {"y": ("float32", ["batch", 2])},
    )
    return serve(graphs.folder, metrics_address="127.0.0.1:0", transport="native")


def send_some(caller):
    caller.infer(caller.message(MODEL, x=np.ones((1, 2), np.float32)))
    for message in (caller.message(MODEL, x=np.ones((1, 3), np.float32)), b"\xff"):
        with contextlib.suppress(grpc.RpcError):
            caller.infer(message)


def test_every_query_uses_metrics_that_a_server_shows(server, call):
    names = scrape(server._management.address).names | {"up"}
    queries = [*dashboard_queries(), *alert_queries(), *scaling_queries(), *TRITON.values()]
    assert len(scaling_queries()) == len(("HPA", "KEDA", "KServe"))
    assert len(alert_queries()) == ALERTS.read_text().count("- alert:") > 5
    for query in queries:
        used = set(_NAME.findall(_STRING.sub('""', query))) - {"grpc_method", "grpc_code"}
        assert used, query
        assert used <= names, query


@pytest.fixture(scope="module")
def promtool():
    """Run promtool, of Debian's package prometheus."""
    path = shutil.which("promtool")
    if path is None:
        pytest.skip("promtool is not installed; Debian's package prometheus has it")

    def run(*words, **options):
        return subprocess.run(
            [path, *words], capture_output=True, text=True, timeout=60, check=False, **options
        )

    return run


def test_the_rules_and_the_configuration_are_valid(promtool):
    rules = promtool("check", "rules", ALERTS)
    assert rules.returncode == 0, rules.stderr
    assert f"{len(alert_queries())} rules found" in rules.stdout
    config = promtool("check", "config", PROMETHEUS / "prometheus.yml")
    assert config.returncode == 0, config.stderr


def test_each_alert_fires_for_what_it_is_about_and_for_nothing_else(promtool, tmp_path):
    cases = ROOT / "tests" / "deploy" / "alerts_fire.yml"
    for alert in re.findall(r"- alert: (\w+)", ALERTS.read_text()):
        assert f'alertname="{alert}"' in cases.read_text()
    shutil.copy(ALERTS, tmp_path)
    shutil.copy(cases, tmp_path)
    tested = promtool("test", "rules", tmp_path / cases.name)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_promtool_complains_of_no_name_but_tritons(server, promtool, call):
    send_some(call(server.address))
    text = get(server._management.address, "/metrics")[2].decode()
    checked = promtool("check", "metrics", input=text)
    complaints = checked.stderr.splitlines()
    assert complaints
    assert [line for line in complaints if not line.startswith("nv_")] == []
    # What does not parse is another kind of complaint.
    assert all(re.fullmatch(r"nv_\w+ [\w\- \"]+", line) for line in complaints)


class Prometheus:
    """A Prometheus that scrapes one server every second."""

    def __init__(self, path, target, folder):
        config = (PROMETHEUS / "prometheus.yml").read_text()
        assert TARGET in config
        config = config.replace(TARGET, target).replace("15s", "1s")
        (folder / "prometheus.yml").write_text(config)
        shutil.copy(ALERTS, folder)
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{sock.getsockname()[1]}"
        self.popen = subprocess.Popen(
            [
                *(path, f"--config.file={folder / 'prometheus.yml'}"),
                *(f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={self.address}"),
            ],
            stderr=subprocess.DEVNULL,
        )

    def ask(self, path, **query):
        """The data of a page of its API, None while there is none."""
        try:
            status, _, body = get(self.address, f"/api/v1/{path}?{urllib.parse.urlencode(query)}")
        except OSError:
            assert self.popen.poll() is None, "Prometheus has ended"
            return None
        shown = json.loads(body) if status in {200, 400, 422} else {}
        assert shown.get("status") != "error", (query, shown)
        return shown.get("data")

    def values(self, query):
        """The values of a query now, each a number; None while there is none."""
        data = self.ask("query", query=query)
        values = [float(each["value"][1]) for each in data["result"]] if data else []
        return values if values and not any(map(np.isnan, values)) else None


@pytest.fixture(scope="module")
def prometheus(server, call, tmp_path_factory):
    path = shutil.which("prometheus")
    if path is None:
        pytest.skip("prometheus is not installed; Debian's package prometheus has it")
    running = Prometheus(path, server._management.address, tmp_path_factory.mktemp("prometheus"))
    ended = threading.Event()
    caller = call(server.address)

    def send():
        while not ended.wait(0.05):
            send_some(caller)

    sender = threading.Thread(target=send)
    sender.start()
    yield running
    ended.set()
    sender.join()
    running.popen.terminate()
    running.popen.wait()


@pytest.mark.parametrize("name", TRITON)
def test_tritons_queries_have_values(prometheus, eventually, name):
    values = eventually(lambda: prometheus.values(TRITON[name]), TRITON[name])
    assert all(value >= 0 for value in values)
    if name not in {"pending", "failures by reason"}:
        assert max(values) > 0


def test_the_queries_of_the_dashboard_have_values(prometheus, eventually):
    for query in dashboard_queries():
        eventually(lambda query=query: prometheus.values(query), query)


def test_the_alerts_are_evaluated_and_none_fires(prometheus, eventually):
    def rules():
        data = prometheus.ask("rules")
        found = [rule for group in data["groups"] for rule in group["rules"]] if data else []
        return found if found and all(rule["health"] == "ok" for rule in found) else None

    found = eventually(rules, "all rules are evaluated")
    assert len(found) == len(alert_queries())
    assert {rule["state"] for rule in found} == {"inactive"}
