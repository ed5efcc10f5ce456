"""Send spans to a collector by OTLP over gRPC, in batches, from a thread of OpenTelemetry's."""

import logging
import threading
from collections.abc import Sequence
from importlib.metadata import version

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

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
        secure = address.startswith("https://")
        try:
            exporter = OTLPSpanExporter(endpoint=address, insecure=not secure)
            self._provider = TracerProvider(
                sampler=ALWAYS_ON,  # what is not to be traced does not come here
                resource=Resource({"service.name": SERVICE_NAME}).merge(
                    OTELResourceDetector().detect()
                ),
                shutdown_on_exit=False,
            )
            self._provider.add_span_processor(BatchSpanProcessor(_Reporting(exporter, address)))
        except Exception as error:
            raise StartError(f"--trace-otlp {address}: {error}") from None
        self._tracer = self._provider.get_tracer("argmax-serving", version("argmax-serving"))
        self._ending, self._ended = threading.Event(), threading.Event()
        # None of OpenTelemetry's own functions keeps to a time limit. At the end there may be no
        # thread left to start.
        threading.Thread(target=self._shut_down, name="traces-end", daemon=True).start()

    def record(self, request: EndedRequest, parent: TraceParent | None) -> None:
        """Send the spans of a request that has ended, soon."""
        spans.record(self._tracer, request, parent)

    def close(self, timeout_s: float) -> bool:
        """Send what waits, within `timeout_s`. False: that was too short."""
        self._ending.set()
        return self._ended.wait(timeout_s)

    def _shut_down(self) -> None:
        self._ending.wait()
        self._provider.shutdown()
        self._ended.set()


class _Reporting(SpanExporter):
    """Logs when spans cannot be sent, and when they can be again."""

    def __init__(self, exporter: SpanExporter, address: str) -> None:
        self._exporter = exporter
        self._address = address
        self._failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans."""
        result = self._exporter.export(spans)
        failing = result is not SpanExportResult.SUCCESS
        if failing != self._failing:
            self._failing = failing
            level = logging.WARNING if failing else logging.INFO
            text = "traces cannot be sent" if failing else "traces are sent again"
            _log.log(level, text, extra={"collector": self._address})
        return result

    def shutdown(self) -> None:
        """Close the connection."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing waits here."""
        return self._exporter.force_flush(timeout_millis)
