"""Servers that Ray places: updated, killed, lost with their node and scaled, under load."""

import contextlib
import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import numpy as np
import psutil
import pytest
from clear_examples import clear_examples
from client_load import Load, answered
from conftest import ROOT

from client import Client, Resolving
from model.export import export
from model.weights import from_seed

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None, reason="needs the extra [ray]: make ray-check"
    ),
]

CLASSES, FEATURES, ROWS = 8, 1024, 64
PATIENCE_S = 180
OFTEN = Resolving(1.0)
LEAVE_S = 2.5
# Of each thread of a load, so that Ray's processes have the cores too.
PAUSE_S = 0.05
LEAST_SHARE, WINDOW = 0.1, 60
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(ROOT),
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
}
REPLICA = "ray::ServeReplica:argmax:Server"


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]


class RayCluster:
    """A cluster, and the application that is deployed on it."""

    def __init__(self, folder):
        self._folder = folder
        self._log = (folder / "cluster.log").open("w")
        self._process = subprocess.Popen(
            [sys.executable, ROOT / "tests" / "ray_cluster.py", "4"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=ENVIRONMENT,
        )
        assert json.loads(self._process.stdout.readline()) == "ready", folder
        self.port = free_port()
        self.list = f"ray://127.0.0.1:{self.port}/argmax"

    def do(self, *command):
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def deploy(self, options, **servers):
        """Have the application that deploy/ray/serve.yaml describes, with other options."""
        text = (ROOT / "deploy" / "ray" / "serve.yaml").read_text()
        words = json.dumps([str(word) for word in options])
        # Serve reads YAML, which JSON is.
        server = {"name": "Server", "ray_actor_options": {"num_cpus": 1}, **servers}
        for pattern, new in (
            (r"port: 8000", f"port: {self.port}"),
            (r"options: \[.*\]", f"options: {words}"),
            (r"leave_s: \d+", f"leave_s: {LEAVE_S}"),
            (r"- name: Server\n(?:.*\n)+?(?=      - name: )", f"- {json.dumps(server)}\n"),
        ):
            text, count = re.subn(pattern, lambda _, new=new: new, text)
            assert count == 1, pattern
        path = self._folder / "serve.yaml"
        path.write_text(text)
        self.do("deploy", str(path))

    def listed(self):
        """Addresses of the servers, as clients get them; none where that fails."""
        page = f"http://127.0.0.1:{self.port}/argmax"
        try:
            with urllib.request.urlopen(page, timeout=10) as answer:
                return answer.read().decode().split()
        except (urllib.error.URLError, OSError):
            return []

    def running(self, count, eventually):
        """Wait for so many servers, all of which are listed; their addresses."""

        def all_listed():
            status = self.do("status").get("argmax", {})
            addresses = self.listed()
            ready = status.get("servers") == {"RUNNING": count} and len(addresses) == count
            return ready and status["status"] == "RUNNING" and addresses

        return eventually(all_listed, f"{count} servers are listed", PATIENCE_S)

    def close(self):
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait(PATIENCE_S)
        self._process.stdout.close()
        self._log.close()


def process_of(address):
    """The process that listens at an address."""
    port = int(address.rpartition(":")[2])
    (found,) = {
        each.pid
        for each in psutil.net_connections("tcp")
        if each.status == psutil.CONN_LISTEN and each.laddr.port == port
    }
    return psutil.Process(found)


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    """Two folders with the model, and the labels of each: they agree on no example."""
    x, labels = clear_examples(CLASSES, FEATURES, ROWS)
    weights = from_seed(CLASSES, FEATURES, 0)
    folders = []
    for shift in (0, 1):
        folders.append(tmp_path_factory.mktemp("models"))
        export(folders[-1], "linear_argmax", np.roll(weights, shift, axis=0), "float32", 0)
    return x, folders, (labels, (labels + 1) % CLASSES)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    made = RayCluster(tmp_path_factory.mktemp("ray"))
    yield made
    made.close()


@contextlib.contextmanager
def load_on(cluster, eventually, x, *labels):
    """A load that loses nothing, to the end of the block."""
    with Client(cluster.list, deadline_s=PATIENCE_S, resolving=OFTEN) as client:
        load = Load(client, x, *labels, pause_s=PAUSE_S)
        with load.running():
            load.goes_on(eventually)
            yield load
            load.goes_on(eventually)
    load.lost_nothing()


def shared(call, addresses, eventually):
    """Wait until each of the servers answers its share of the requests of now."""
    callers = [call(address) for address in addresses]

    def all_share():
        before = list(map(answered, callers))

        def window():
            got = np.subtract(list(map(answered, callers)), before).tolist()
            return got if sum(got) >= WINDOW else None

        got = eventually(window, "requests are answered", PATIENCE_S)
        return min(got) >= LEAST_SHARE * sum(got)

    eventually(all_share, "all share the load", PATIENCE_S)


def options(models, *more):
    return ["--models", models, "--validation", "off", "--grace-s", "20", *more]


def test_a_rolling_update_fails_no_request_and_mixes_no_answer(cluster, contents, call, eventually):
    x, (old, new), labels = contents
    for replicas in (1, 2):
        cluster.deploy(options(old), num_replicas=replicas)
        before = cluster.running(replicas, eventually)
        with load_on(cluster, eventually, x, *labels) as load:
            cluster.deploy(options(new), num_replicas=replicas)
            eventually(
                lambda old=before: not set(old) & set(cluster.listed()),
                "all are updated",
                PATIENCE_S,
            )
            shared(call, cluster.running(replicas, eventually), eventually)
            load.goes_on(eventually)
        with Client(cluster.list) as client:
            np.testing.assert_array_equal(client.predict(x), labels[1])


def test_a_replica_that_is_killed_costs_no_request(cluster, contents, call, eventually):
    x, (models, _), (labels, _) = contents
    cluster.deploy(options(models), num_replicas=2)
    addresses = cluster.running(2, eventually)
    with load_on(cluster, eventually, x, labels) as load:
        shared(call, addresses, eventually)
        victim = process_of(addresses[0])
        assert victim.name().startswith("ray::ServeRepl")
        victim.send_signal(signal.SIGKILL)
        load.goes_on(eventually)
        eventually(lambda: addresses[0] not in cluster.listed(), "it is dropped", PATIENCE_S)
        now = cluster.running(2, eventually)
        assert addresses[1] in now
        shared(call, now, eventually)


def test_a_node_that_is_killed_costs_no_request(cluster, contents, call, eventually):
    x, (models, _), (labels, _) = contents
    cluster.do("node", "other", 2)
    cluster.deploy(options(models), num_replicas=2, max_replicas_per_node=1)
    addresses = cluster.running(2, eventually)
    with load_on(cluster, eventually, x, labels) as load:
        shared(call, addresses, eventually)
        cluster.do("kill_node", "other")
        load.goes_on(eventually)
        (left,) = eventually(
            lambda: len(now := cluster.listed()) == 1 and now, "one is dropped", PATIENCE_S
        )
        assert left in addresses
        load.goes_on(eventually)
        cluster.do("node", "third", 2)
        shared(call, cluster.running(2, eventually), eventually)
    cluster.do("kill_node", "third")


def test_a_queue_scales_from_one_to_two_and_back_and_no_request_fails(cluster, graphs, eventually):
    graphs.add_steps()
    steps = np.full((1, 1), 20_000)
    policy = {
        "policy_function": "deploy.ray.scaling:QueuePolicy",
        "policy_kwargs": {"waiting_per_replica": 4},
    }
    cluster.deploy(
        options(graphs.folder, "--max-batch-rows", "1", "--group-rows", "1"),
        autoscaling_config={
            **{"min_replicas": 1, "max_replicas": 2, "policy": policy},
            **{"upscale_delay_s": 1, "downscale_delay_s": 2, "look_back_period_s": 2},
        },
    )
    cluster.running(1, eventually)
    errors = []
    busy, stop = threading.Event(), threading.Event()
    with Client(cluster.list, "steps", deadline_s=PATIENCE_S, resolving=OFTEN) as client:

        def ask(until):
            try:
                while not until.is_set():
                    np.testing.assert_array_equal(client.predict(steps), steps)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=ask, args=(busy,)) for _ in range(15)]
        threads.append(threading.Thread(target=ask, args=(stop,)))
        for thread in threads:
            thread.start()
        try:
            cluster.running(2, eventually)
            busy.set()
            cluster.running(1, eventually)
        finally:
            busy.set()
            stop.set()
            for thread in threads:
                thread.join()
    assert errors == []


def test_options_that_replicas_cannot_have_are_refused_before_any_is_placed(
    cluster, contents, eventually
):
    _, (models, _), _ = contents
    cluster.deploy(options(models, "--model-control", "explicit"), num_replicas=1)

    def refused():
        status = cluster.do("status")["argmax"]
        return status["status"] == "DEPLOY_FAILED" and status["message"]

    message = eventually(refused, "it is refused", PATIENCE_S)
    assert "got --model-control explicit, expected none or poll" in message
