"""Pick the requests that are traced, and have their spans made in another thread."""

import logging
import threading
from collections.abc import Callable, Sequence

from server.app.bounded_queue import BoundedQueue
from server.rpc.accounting.ended_request import EndedRequest
from server.rpc.tracing import traceparent
from server.rpc.tracing.trace_settings import TraceSettings
from server.rpc.tracing.traceparent import TraceParent

# Makes and sends the spans of a request.
Record = Callable[[EndedRequest, TraceParent | None], object]

_MOST_WAITING = 1024
_AT_ONCE = 16
_LONGEST_TEXT = 300
_log = logging.getLogger(__name__)


class Traces:
    """Making spans takes longer than a small request: it is not done by the threads that end it."""

    def __init__(self, settings: TraceSettings, record: Record) -> None:
        self._settings = settings
        self._record = record
        self._queue: BoundedQueue[tuple[EndedRequest, TraceParent | None] | None]
        self._queue = BoundedQueue(_MOST_WAITING)
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Requests that were to be traced, and were too many."""
        return self._queue.dropped

    def wants(self, model: str, metadata: Sequence[tuple[str, str | bytes]]) -> bool:
        """Whether to trace a request; see RequestEnds.observe."""
        parent = traceparent.parent(metadata)
        return self._settings.sample(model, asked=None if parent is None else parent.sampled)

    def request_ended(self, request: EndedRequest) -> None:
        """Trace a request that was wanted."""
        parent = traceparent.parent(request.metadata)
        self._queue.put((request.bounded(_LONGEST_TEXT), parent))

    def close(self, timeout_s: float) -> None:
        """Make the spans that wait, within `timeout_s`."""
        self._queue.put_always(None)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            for item in self._queue.take(_AT_ONCE):
                if item is None:
                    return
                try:
                    self._record(*item)
                except Exception:
                    _log.exception("a request cannot be traced")
