"""Send spans to a collector by OTLP over gRPC, in batches, from a thread of OpenTelemetry's."""

import logging
import threading
from collections.abc import Callable, Sequence
from importlib.metadata import version

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span
from opentelemetry.sdk.resources import OTELResourceDetector
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.trace import NoOpTracer, SpanContext, TraceFlags

from server.app.observers import spans
from server.errors import StartError
from server.rpc.accounting.ended_request import EndedRequest
from server.rpc.tracing.traceparent import TraceParent

SERVICE_NAME = "argmax-server"
_log = logging.getLogger(__name__)


class Collector:
    """Where spans go. One that cannot be reached is a warning, and costs the spans only."""

    def __init__(self, address: str) -> None:
        """`address`: HOST:PORT for plaintext, or a URL with http:// or https://.

        StartError if an OTEL_* variable in the environment has a bad value.
        """
        # It warns of each try, and of each span too many.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        try:
            self._processor = BatchSpanProcessor(_Exporter(address))
        except Exception as error:
            raise StartError(f"--trace-otlp {address}: {error}") from None
        # OTEL_SDK_DISABLED, as the SDK reads it.
        tracer = TracerProvider(shutdown_on_exit=False).get_tracer(SERVICE_NAME)
        self._disabled = isinstance(tracer, NoOpTracer)
        self._ending, self._ended = threading.Event(), threading.Event()
        # None of OpenTelemetry's own functions keeps to a time limit. At the end there may be no
        # thread left to start.
        threading.Thread(target=self._shut_down, name="traces-end", daemon=True).start()

    def record(self, request: EndedRequest, parent: TraceParent | None) -> None:
        """Send the spans of a request that has ended, soon."""
        if self._disabled:
            return
        for span in spans.of_request(request, parent):
            self._processor.on_end(_Made(span))

    def close(self, timeout_s: float) -> bool:
        """Send what waits, within `timeout_s`. False: that was too short."""
        self._ending.set()
        return self._ended.wait(timeout_s)

    def _shut_down(self) -> None:
        self._ending.wait()
        shutdown: Callable[[], None] = self._processor.shutdown
        shutdown()
        self._ended.set()


class _Made(ReadableSpan):
    """A span that is a message already: what the processor asks of one is whether it is sampled."""

    context = SpanContext(1, 1, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))

    def __init__(self, message: Span) -> None:
        self.message = message


class _Exporter(OTLPSpanExporter):
    """Sends spans that are messages. Logs when they cannot be sent, and when they can be again."""

    def __init__(self, address: str) -> None:
        super().__init__(endpoint=address, insecure=not address.startswith("https://"))
        self._collector = address
        self._failing = False
        known = {"service.name": SERVICE_NAME, **OTELResourceDetector().detect().attributes}
        self._from = Resource(
            attributes=[
                KeyValue(key=name, value=AnyValue(string_value=str(value)))
                for name, value in known.items()
            ]
        )
        self._scope = InstrumentationScope(name="argmax-serving", version=version("argmax-serving"))

    def _translate_data(self, data: Sequence[ReadableSpan]) -> ExportTraceServiceRequest:
        messages = [each.message for each in data if isinstance(each, _Made)]
        scope_spans = ScopeSpans(scope=self._scope, spans=messages)
        resource_spans = ResourceSpans(resource=self._from, scope_spans=[scope_spans])
        return ExportTraceServiceRequest(resource_spans=[resource_spans])

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans."""
        result = super().export(spans)
        failing = result is not SpanExportResult.SUCCESS
        if failing != self._failing:
            self._failing = failing
            level = logging.WARNING if failing else logging.INFO
            text = "traces cannot be sent" if failing else "traces are sent again"
            _log.log(level, text, extra={"collector": self._collector})
        return result
