"""The custom metrics API, as an adapter of Prometheus serves it, with a value that tests set."""

import json
import ssl
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

GROUP, VERSION = "custom.metrics.k8s.io", "v1beta2"
METRIC = "nv_inference_pending_request_count"
ROOT = f"/apis/{GROUP}/{VERSION}"


class CustomMetrics:
    """A server of one metric; `value` of each of the pods that `pods()` names."""

    def __init__(self, certificate, key, namespace, pods):
        self.value = 0
        self._namespace = namespace
        self._pods = pods
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def manifests(self):
        """Kind, name and YAML of what makes the API server ask this server."""
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "adapter", "namespace": self._namespace},
            "spec": {
                "type": "ExternalName",
                "externalName": "localhost",
                "ports": [{"port": self.port}],
            },
        }
        name = f"{VERSION}.{GROUP}"
        registration = {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": name},
            "spec": {
                "service": {
                    "name": "adapter",
                    "namespace": self._namespace,
                    "port": self.port,
                },
                "group": GROUP,
                "version": VERSION,
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
                "insecureSkipTLSVerify": True,
            },
        }
        yield "Service", "adapter", json.dumps(service)
        yield "APIService", name, json.dumps(registration)

    def stop(self):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, path):
        if path == ROOT:
            name = {"name": f"pods/{METRIC}", "singularName": "", "namespaced": True}
            resource = name | {"kind": "MetricValueList", "verbs": ["get"]}
            return {
                "kind": "APIResourceList",
                "apiVersion": "v1",
                "groupVersion": f"{GROUP}/{VERSION}",
                "resources": [resource],
            }
        if path != f"{ROOT}/namespaces/{self._namespace}/pods/*/{METRIC}":
            return None
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        items = [
            {
                "describedObject": {
                    "kind": "Pod",
                    "apiVersion": "/v1",
                    "namespace": self._namespace,
                    "name": pod,
                },
                "metric": {"name": METRIC},
                "timestamp": now,
                "value": str(self.value),
            }
            for pod in self._pods()
        ]
        return {
            "kind": "MetricValueList",
            "apiVersion": f"{GROUP}/{VERSION}",
            "metadata": {},
            "items": items,
        }

    def _handler(self):
        metrics = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                answer = metrics._answer(unquote(self.path.partition("?")[0]))
                body = json.dumps(answer).encode()
                self.send_response(404 if answer is None else 200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        return Handler
