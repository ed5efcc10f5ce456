"""A collector of spans, as OpenTelemetry's exporters call it."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


@dataclass
class Trace:
    """The spans of one request, its own first, and of which resource they are."""

    spans: list
    resource: dict

    @property
    def root(self):
        """The span of the whole request."""
        return self.spans[0]

    def only(self, name):
        """The one span of that name."""
        (span,) = (span for span in self.spans if span.name == name)
        return span

    @property
    def names(self):
        """Names of the spans."""
        return {span.name for span in self.spans}

    def parent_of(self, name):
        """Name of a span's parent; "" if that is not here."""
        wanted = self.only(name).parent_span_id
        return "".join(span.name for span in self.spans if span.span_id == wanted)


class Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps the spans it gets."""

    def __init__(self, credentials=None):
        self._server = grpc.server(ThreadPoolExecutor(2))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self._server)
        if credentials is None:
            port = self._server.add_insecure_port("127.0.0.1:0")
        else:
            port = self._server.add_secure_port("localhost:0", credentials)
        self.address = f"{'127.0.0.1' if credentials is None else 'localhost'}:{port}"
        self.metadata = {}
        self._lock = threading.Lock()
        self._spans = []
        self._server.start()

    def Export(self, request, context):  # noqa: N802
        """Keep spans."""
        with self._lock:
            self.metadata |= dict(context.invocation_metadata())
            for resource_spans in request.resource_spans:
                resource = attributes(resource_spans.resource)
                for scope in resource_spans.scope_spans:
                    self._spans += [(span, resource) for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()

    def traces(self):
        """The requests of which the spans were received so far, in their order."""
        with self._lock:
            spans = list(self._spans)
        # A span ends after those within it, and so they were sent before.
        children = {}
        for span, _ in spans:
            children.setdefault(span.parent_span_id, []).append(span)
        return [
            Trace(_with_all_within(span, children), resource)
            for span, resource in spans
            if span.name == "InferRequest"
        ]

    def close(self):
        """End it."""
        self._server.stop(None).wait()


def _with_all_within(span, children):
    return [
        span,
        *(
            found
            for child in children.get(span.span_id, ())
            for found in _with_all_within(child, children)
        ),
    ]


def attributes(of):
    """Attributes of a span or a resource by name."""
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in of.attributes}
