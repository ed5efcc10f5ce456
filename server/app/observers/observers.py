"""Compose what observes requests and calls, as the options want it."""

import logging
import time
from typing import TYPE_CHECKING

from command_line import extras
from server.app import logs
from server.app.config import Config
from server.app.observers.access_log import AccessLog
from server.app.observers.traces import Traces
from server.errors import StartError
from server.rpc.accounting.call_ends import CallEnds
from server.rpc.accounting.request_ends import RequestEnds
from server.rpc.tracing.trace_settings import TraceSettings

if TYPE_CHECKING:
    from server.app.observers.otlp import Collector

# Of a collector that does not answer.
_LAST_SPANS_S = 1.0
_log = logging.getLogger(__name__)


class Observers:
    """The access log and the traces of a server; without their options nothing is observed."""

    def __init__(self, config: Config, requests: RequestEnds, calls: CallEnds) -> None:
        """StartError without the packages for traces, or if OpenTelemetry's settings are bad."""
        self.trace_settings: TraceSettings | None = None
        self._collector: Collector | None = None
        self._traces: Traces | None = None
        if config.trace_otlp is not None:
            self._collector = _collector(config.trace_otlp)
            self.trace_settings = TraceSettings(config.trace_rate)
            self._traces = Traces(self.trace_settings, self._collector.record)
            requests.observe(self._traces.request_ended, self._traces.wants)
        elif config.trace_rate:
            raise StartError(f"got --trace-rate 1/{config.trace_rate} alone, expected --trace-otlp")
        if config.access_log is not None or config.slow_ms is not None:
            slow_ns = None if config.slow_ms is None else config.slow_ms * 1_000_000
            access_log = AccessLog(config.access_log or 0, slow_ns, logs.writer())
            requests.observe(access_log.request_ended)
            if config.access_log is not None:
                calls.observe(access_log.call_ended)

    def dropped(self) -> dict[str, int]:
        """Lines of the log that stderr did not take in time, and requests too many to be traced."""
        traces = 0 if self._traces is None else self._traces.dropped
        return {"log_lines": logs.writer().dropped, "traces": traces}

    def close(self) -> None:
        """Send the spans that wait, within a bound."""
        if self._traces is None or self._collector is None:
            return
        end_s = time.monotonic() + _LAST_SPANS_S
        self._traces.close(_LAST_SPANS_S)
        if not self._collector.close(max(0.0, end_s - time.monotonic())):
            _log.warning("the last traces were not sent in time")


def _collector(address: str) -> "Collector":
    try:
        module = extras.imported("server.app.observers.otlp", "otel", "--trace-otlp")
    except extras.MissingExtra as error:
        raise StartError(str(error)) from None
    collector: Collector = module.Collector(address)
    return collector
