"""The Kubernetes files in a cluster without nodes: see `make cluster-check`."""

import re
import subprocess
from datetime import UTC, datetime
from itertools import count as counting

import cluster_programs
import kubernetes_tools
import pytest
from certificates import Authority
from conftest import ROOT
from kube_cluster import PATHS, Cluster
from kube_custom_metrics import GROUP, METRIC, VERSION, CustomMetrics

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        not all(cluster_programs.path(name).exists() for name in cluster_programs.PROGRAMS),
        reason="no programs of a cluster, which `make cluster-check` builds",
    ),
]
FOLDER = ROOT / "deploy" / "kubernetes"
NAME = "argmax-serving"
CHANGE_S = 120
ADDRESSES = counting(1)
TOO_MANY_REQUESTS = 429


def documents(text):
    """Kind, name and text of each manifest of composed files."""
    for document in text.split("\n---\n"):
        (kind,) = re.findall(r"^kind: (\w+)$", document, re.MULTILINE)
        _, _, metadata = document.partition("\nmetadata:\n")
        name = re.search(r"^  name: (.+)$", metadata, re.MULTILINE)[1]
        yield kind, name, document


def compose(name):
    done = subprocess.run(
        [*kubernetes_tools.kustomize(), FOLDER / name],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return list(documents(done.stdout))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, eventually):
    """A cluster with the definitions of all kinds, a node, and overlays/hpa."""
    folder = tmp_path_factory.mktemp("cluster")
    running = Cluster(folder, Authority(folder / "certificates"), eventually)
    try:
        for file in kubernetes_tools.definitions():
            text = file.read_text()
            (name,) = re.findall(r"^  name: (.+)$", text, re.MULTILINE)
            # Definitions that others wrote have fields of versions of their own.
            status, answer = running.apply("CustomResourceDefinition", name, text, strict=False)
            assert status in {200, 201}, answer
        for kind in ("ServiceMonitor", "PrometheusRule", "ScaledObject", "ServingRuntime"):
            eventually(lambda kind=kind: running.get(kind), f"{kind} is served", CHANGE_S)
        eventually(lambda: running.get("InferenceService"), "all kinds are served", CHANGE_S)
        node = '{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node"}}'
        assert running.apply("Node", "node", node)[0] == 201
        for kind, name, text in compose("overlays/hpa"):
            status, answer = running.apply(kind, name, text)
            assert status == 201, answer
        yield running
    finally:
        running.stop()


@pytest.fixture
def serving(cluster, eventually):
    """Function that waits for a number of pods and reports all of them ready; gives the pods."""

    def serve(count):
        def there():
            found = pods(cluster)
            return found if len(found) == count else None

        found = eventually(there, f"{count} pods", CHANGE_S)
        for pod in found:
            make_ready(cluster, pod["metadata"]["name"])
        eventually(lambda: len(addresses(cluster)) == count, f"{count} addresses", CHANGE_S)
        return found

    return serve


def pods(cluster):
    """All pods that are not being deleted."""
    return [
        pod for pod in cluster.get("Pod")["items"] if "deletionTimestamp" not in pod["metadata"]
    ]


def make_ready(cluster, name):
    """Put a pod on the node and report it ready, as a scheduler and a kubelet would."""
    path = f"{PATHS['Pod'].format(NAME)}/{name}"
    _, pod = cluster.request("GET", path)
    if pod.get("status", {}).get("podIP"):
        return
    target = {"apiVersion": "v1", "kind": "Node", "name": "node"}
    binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target}
    status, answer = cluster.request("POST", f"{path}/binding", binding)
    assert status == 201, answer
    address = f"10.1.0.{next(ADDRESSES)}"
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    state = {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "startTime": now,
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": now}],
    }
    status, answer = cluster.request(
        "PATCH", f"{path}/status", {"status": state}, "application/merge-patch+json"
    )
    assert status == 200, answer


def addresses(cluster):
    """Addresses of the Service at which a server is ready."""
    return {
        address
        for each in cluster.get("EndpointSlice")["items"]
        if each["metadata"]["labels"].get("kubernetes.io/service-name") == NAME
        for endpoint in each["endpoints"] or ()
        if endpoint["conditions"]["ready"]
        for address in endpoint["addresses"]
    }


def evict(cluster, name):
    """Status code and answer of an eviction, as `kubectl drain` asks for it."""
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    return cluster.request("POST", f"{PATHS['Pod'].format(NAME)}/{name}/eviction", eviction)


@pytest.mark.parametrize("name", ["base", "overlays/hpa", "overlays/keda", "kserve"])
def test_all_files_are_accepted_strictly(cluster, name):
    for kind, resource, text in compose(name):
        status, answer = cluster.apply(kind, resource, text, dry_run=True)
        assert status in {200, 201}, answer


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        ("Deployment", "readinessProbe:", "readynessProbe:"),
        ("ScaledObject", "minReplicaCount:", "minReplicas:"),
        ("InferenceService", "protocolVersion:", "protocolVersions:"),
    ],
)
def test_misspelt_fields_are_refused(cluster, kind, right, wrong):
    for each, name, text in compose("overlays/keda") + compose("kserve"):
        if each == kind:
            status, answer = cluster.apply(kind, name, text.replace(right, wrong, 1), dry_run=True)
            assert status >= 400, answer
            assert wrong.rstrip(":") in answer["message"]


def test_pods_that_need_more_than_restricted_are_rejected(cluster, serving):
    serving(2)
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "privileged"},
        "spec": {"containers": [{"name": "it", "image": "it"}]},
    }
    status, answer = cluster.request("POST", PATHS["Pod"].format(NAME), pod)
    assert status == 403
    assert 'violates PodSecurity "restricted:latest"' in answer["message"]


def test_the_service_has_the_addresses_of_ready_pods_alone(cluster, serving, eventually):
    first, *_ = serving(2)
    before = addresses(cluster)
    path = f"{PATHS['Pod'].format(NAME)}/{first['metadata']['name']}"
    _, pod = cluster.request("GET", path)
    state = {"conditions": [{"type": "Ready", "status": "False"}]}

    def patch(ready):
        state["conditions"][0]["status"] = ready
        kind = "application/merge-patch+json"
        assert cluster.request("PATCH", f"{path}/status", {"status": state}, kind)[0] == 200

    patch("False")
    rest = before - {pod["status"]["podIP"]}
    eventually(lambda: addresses(cluster) == rest, "it has left the Service", CHANGE_S)
    patch("True")
    eventually(lambda: addresses(cluster) == before, "it is back", CHANGE_S)
    service = cluster.get("Service", NAME)
    assert service["spec"]["clusterIP"] == "None"


def test_one_server_at_a_time_is_evicted(cluster, serving, eventually):
    first, second = (pod["metadata"]["name"] for pod in serving(2))

    def allowed():
        return cluster.get("PodDisruptionBudget", NAME)["status"].get("disruptionsAllowed")

    eventually(lambda: allowed() == 1, "one may be evicted", CHANGE_S)
    assert evict(cluster, first)[0] == 201
    # Its successor is there, and nobody has said that it is ready.
    eventually(lambda: len(pods(cluster)) == 2, "a successor", CHANGE_S)
    status, answer = evict(cluster, second)
    assert status == TOO_MANY_REQUESTS
    assert "disruption budget" in answer["message"]
    path = f"{PATHS['Pod'].format(NAME)}/{first}"
    _, leaving = cluster.request("GET", path)
    assert leaving["metadata"]["deletionGracePeriodSeconds"] == 45
    # As a kubelet says that it has ended.
    assert cluster.request("DELETE", f"{path}?gracePeriodSeconds=0")[0] == 200
    serving(2)
    eventually(lambda: allowed() == 1, "the next one may be evicted", CHANGE_S)


def test_the_autoscaler_follows_the_requests_that_wait(cluster, serving, eventually, metrics):
    serving(2)
    # Three times the target; the policies allow two more servers each 30 s.
    metrics.value = 24
    eventually(lambda: len(pods(cluster)) >= 4, "more servers", CHANGE_S)
    status = cluster.get("HorizontalPodAutoscaler", NAME)["status"]
    (current,) = status["currentMetrics"]
    assert current["pods"]["metric"]["name"] == METRIC
    assert current["pods"]["current"]["averageValue"] == "24"
    # Applied again, the files leave the number as it is.
    for kind, name, text in compose("overlays/hpa"):
        assert cluster.apply(kind, name, text)[0] == 200
    assert cluster.get("Deployment", NAME)["spec"]["replicas"] >= 4


@pytest.fixture
def metrics(cluster, tmp_path, eventually):
    """The custom metrics API, of which the API server has been told."""
    certificate, key = Authority(tmp_path / "certificates").sign("adapter")
    running = CustomMetrics(
        certificate, key, NAME, lambda: [pod["metadata"]["name"] for pod in pods(cluster)]
    )
    try:
        for kind, name, text in running.manifests():
            status, answer = cluster.apply(kind, name, text)
            assert status == 201, answer
        path = f"/apis/{GROUP}/{VERSION}"
        eventually(lambda: cluster.request("GET", path)[0] == 200, "the adapter", CHANGE_S)
        yield running
    finally:
        running.stop()
