"""Pass the trace of the caller on, as W3C's `traceparent` and `tracestate`.

https://www.w3.org/TR/trace-context/
"""

import importlib
import sys
from collections.abc import Callable
from functools import cache

from client.connection.metadata import Metadata

_API = "opentelemetry.trace"
_PROPAGATION = "opentelemetry.trace.propagation.tracecontext"


def trace_metadata() -> Metadata:
    """Metadata of the current span; none without one, or if nobody imported OpenTelemetry's API."""
    if _API not in sys.modules:
        return ()
    entries: dict[str, str] = {}
    _inject()(entries)
    return tuple(entries.items())


@cache
def _inject() -> Callable[[dict[str, str]], None]:
    # Another thread may be importing the API: this waits for it.
    propagator = importlib.import_module(_PROPAGATION).TraceContextTextMapPropagator()
    inject: Callable[[dict[str, str]], None] = propagator.inject
    return inject
