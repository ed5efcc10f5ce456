"""A cluster without nodes: etcd, an API server and its controllers, on loopback.

No kubelet and no scheduler run, so tests bind pods and say how they are.
"""

import http.client
import json
import secrets
import socket
import ssl
import subprocess

import cluster_programs

START_S = 120
NAMESPACE = "argmax-serving"
CONTROLLERS = (
    "deployment-controller",
    "replicaset-controller",
    "disruption-controller",
    "endpointslice-controller",
    "horizontal-pod-autoscaler-controller",
    "serviceaccount-controller",
)
# Where resources lie, by kind.
PATHS = {
    "Namespace": "/api/v1/namespaces",
    "Node": "/api/v1/nodes",
    "CustomResourceDefinition": "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "APIService": "/apis/apiregistration.k8s.io/v1/apiservices",
    "Service": "/api/v1/namespaces/{}/services",
    "Pod": "/api/v1/namespaces/{}/pods",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
    "EndpointSlice": "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices",
    "HorizontalPodAutoscaler": "/apis/autoscaling/v2/namespaces/{}/horizontalpodautoscalers",
    "ServiceMonitor": "/apis/monitoring.coreos.com/v1/namespaces/{}/servicemonitors",
    "PrometheusRule": "/apis/monitoring.coreos.com/v1/namespaces/{}/prometheusrules",
    "ScaledObject": "/apis/keda.sh/v1alpha1/namespaces/{}/scaledobjects",
    "ServingRuntime": "/apis/serving.kserve.io/v1alpha1/namespaces/{}/servingruntimes",
    "InferenceService": "/apis/serving.kserve.io/v1beta1/namespaces/{}/inferenceservices",
}


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Cluster:
    """The programs, and requests to them as an administrator."""

    def __init__(self, folder, authority, eventually):
        self._folder = folder
        self._processes = []
        self._eventually = eventually
        self._port = free_port()
        self._token = secrets.token_hex(16)
        self._context = ssl.create_default_context(cafile=authority.certificate)
        try:
            self._start_all(authority)
        except BaseException:
            self.stop()
            raise

    def _start_all(self, authority):
        certificate, key = authority.sign("apiserver")
        account, account_key = authority.sign("accounts")
        etcd, peers = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        self._start(
            "etcd",
            *(f"--data-dir={self._folder / 'data'}", f"--listen-client-urls={etcd}"),
            *(f"--advertise-client-urls={etcd}", f"--listen-peer-urls={peers}"),
            *(f"--initial-advertise-peer-urls={peers}", f"--initial-cluster=default={peers}"),
            "--unsafe-no-fsync",
        )
        tokens = self._folder / "tokens.csv"
        tokens.write_text(f"{self._token},administrator,1,system:masters\n")
        self._start(
            "kube-apiserver",
            *(f"--etcd-servers={etcd}", f"--secure-port={self._port}", "--bind-address=127.0.0.1"),
            *(f"--tls-cert-file={certificate}", f"--tls-private-key-file={key}"),
            *(f"--token-auth-file={tokens}", "--authorization-mode=RBAC"),
            *("--service-cluster-ip-range=10.0.0.0/24", f"--service-account-key-file={account}"),
            f"--service-account-signing-key-file={account_key}",
            "--service-account-issuer=https://kubernetes.default.svc",
        )
        self._eventually(self._ready, "the API server is ready", START_S)
        config = self._folder / "kubeconfig.json"
        config.write_text(json.dumps(self._kubeconfig(authority)))
        self._start(
            "kube-controller-manager",
            *(f"--kubeconfig={config}", f"--controllers={','.join(CONTROLLERS)}"),
            *("--leader-elect=false", "--secure-port=0"),
            "--horizontal-pod-autoscaler-sync-period=1s",
        )

    def _kubeconfig(self, authority):
        cluster = {
            "server": f"https://127.0.0.1:{self._port}",
            "certificate-authority": str(authority.certificate),
        }
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "it", "cluster": cluster}],
            "users": [{"name": "it", "user": {"token": self._token}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
            "current-context": "it",
        }

    def _start(self, name, *words):
        log = (self._folder / f"{name}.log").open("wb")
        self._processes.append(
            subprocess.Popen([cluster_programs.path(name), *words], stdout=log, stderr=log)
        )
        log.close()

    def _ready(self):
        for process in self._processes:
            assert process.poll() is None, f"{process.args[0]} has ended; see {self._folder}"
        try:
            return self.request("GET", "/readyz")[0] == http.client.OK
        except OSError:
            return False

    def request(self, method, path, body=None, kind="application/json"):
        """Status code and answer of a request to the API server."""
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self._port, context=self._context, timeout=60
        )
        if body is not None and not isinstance(body, str):
            body = json.dumps(body)
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": kind}
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        is_json = answer.getheader("Content-Type", "").startswith("application/json")
        return answer.status, json.loads(text) if is_json else text

    def apply(self, kind, name, text, namespace=NAMESPACE, *, strict=True, dry_run=False):
        """Status code and answer of a server-side apply of YAML, as kubectl sends it."""
        path = f"{PATHS[kind].format(namespace)}/{name}?fieldManager=test&force=true"
        if strict:
            path += "&fieldValidation=Strict"
        if dry_run:
            path += "&dryRun=All"
        return self.request("PATCH", path, text, "application/apply-patch+yaml")

    def get(self, kind, name="", namespace=NAMESPACE):
        """A resource, or the list of all; None if there is none."""
        path = PATHS[kind].format(namespace) + (f"/{name}" if name else "")
        status, found = self.request("GET", path)
        return found if status == http.client.OK else None

    def stop(self):
        for process in reversed(self._processes):
            process.terminate()
            process.wait(60)
