"""Count each inference request once, when it ends, and hand it to observers."""

import logging
import threading
import time
from collections import Counter

from protos.codec import InferRequest
from server.batching.request import Caller, Timings
from server.batching.statistics import FailReason
from server.loaded_model.model import Model
from server.rpc import status
from server.rpc.accounting.ended_request import EndedRequest, OnRequestEnded
from server.rpc.accounting.pending import Pending
from transport.status import Code, Status

_log = logging.getLogger(__name__)

METHOD, STREAM_METHOD = "ModelInfer", "ModelStreamInfer"
_REASONS = {
    Code.CANCELLED: FailReason.CANCELED,
    # A client whose deadline passes has left, as one that cancels has.
    Code.DEADLINE_EXCEEDED: FailReason.CANCELED,
    Code.RESOURCE_EXHAUSTED: FailReason.REJECTED,
    Code.UNAVAILABLE: FailReason.REJECTED,
    Code.INTERNAL: FailReason.BACKEND,
    Code.UNKNOWN: FailReason.BACKEND,
}


class RequestEnds:
    """The one place where requests end; any thread."""

    def __init__(self) -> None:
        self._observers: tuple[OnRequestEnded, ...] = ()
        self._lock = threading.Lock()
        self._refused: Counter[Code] = Counter()

    def observe(self, observer: OnRequestEnded) -> None:
        """Call `observer` with each request that ends from now on, in the thread that ended it.

        It must be quick: it may hold up the I/O thread, or the worker of a model.
        """
        self._observers = (*self._observers, observer)

    @property
    def refused(self) -> Counter[Code]:
        """Requests that no model had, by the code that their clients got."""
        with self._lock:
            return Counter(self._refused)

    def answered(
        self,
        pending: Pending,
        timings: Timings,
        computed_ns: int,
        done_ns: int,
        response_bytes: int,
    ) -> None:
        """Its answer, of so many bytes, was ready at `done_ns`."""
        if not pending.claim():
            return
        request = pending.request
        pending.model.statistics.succeeded(
            total_ns=done_ns - request.arrived_ns,
            queue_ns=timings.queue_ns - pending.decode_ns,
            input_ns=pending.decode_ns + timings.assemble_ns,
            infer_ns=timings.compute_ns,
            output_ns=done_ns - computed_ns,
            receive_ns=pending.receive_ns,
            streamed=pending.method == STREAM_METHOD,
        )
        if self._observers:
            self._report_pending(
                pending, Code.OK, "", done_ns, timings, done_ns - computed_ns, response_bytes
            )

    def failed(self, pending: Pending, ended: Status) -> None:
        """Its client gets `ended`, or has left."""
        if not pending.claim():
            return
        now_ns = time.monotonic_ns()
        request = pending.request
        reason = _REASONS.get(ended.code, FailReason.OTHER)
        pending.model.statistics.failed(now_ns - request.arrived_ns, reason)
        if self._observers:
            self._report_pending(pending, ended.code, ended.text, now_ns, request.timings)

    def rejected(
        self, message: InferRequest, model: Model, caller: Caller, arrived_ns: int, error: Exception
    ) -> None:
        """The model did not take the message."""
        now_ns = time.monotonic_ns()
        ended = status.described(error)
        reason = _REASONS.get(ended.code, FailReason.OTHER)
        model.statistics.failed(now_ns - arrived_ns, reason)
        if self._observers:
            self._report(
                EndedRequest(
                    method=caller.method,
                    peer=caller.client,
                    metadata=caller.metadata,
                    model=model.name,
                    version=model.version,
                    refused=False,
                    request_id=message.id,
                    code=ended.code,
                    error=ended.text,
                    arrived_ns=arrived_ns,
                    ended_ns=now_ns,
                    request_bytes=message.byte_size,
                )
            )

    def refuse(
        self,
        caller: Caller,
        ended: Status,
        arrived_ns: int,
        request_bytes: int,
        *,
        model: str = "",
        version: str = "",
        request_id: str = "",
    ) -> None:
        """No model had it, which its message names `model`, as far as it was read."""
        with self._lock:
            self._refused[ended.code] += 1
        if self._observers:
            self._report(
                EndedRequest(
                    method=caller.method,
                    peer=caller.client,
                    metadata=caller.metadata,
                    model=model,
                    version=version,
                    refused=True,
                    request_id=request_id,
                    code=ended.code,
                    error=ended.text,
                    arrived_ns=arrived_ns,
                    ended_ns=time.monotonic_ns(),
                    request_bytes=request_bytes,
                )
            )

    def _report_pending(
        self,
        pending: Pending,
        code: Code,
        error: str,
        ended_ns: int,
        timings: Timings,
        encode_ns: int = 0,
        response_bytes: int = 0,
    ) -> None:
        request = pending.request
        self._report(
            EndedRequest(
                method=pending.method,
                peer=request.client,
                metadata=pending.metadata,
                model=pending.model.name,
                version=pending.model.version,
                refused=False,
                request_id=pending.id,
                code=code,
                error=error,
                arrived_ns=request.arrived_ns,
                ended_ns=ended_ns,
                rows=request.rows,
                request_bytes=request.size_bytes,
                response_bytes=response_bytes,
                receive_ns=pending.receive_ns,
                decode_ns=pending.decode_ns,
                encode_ns=encode_ns,
                timings=timings,
            )
        )

    def _report(self, ended: EndedRequest) -> None:
        for observer in self._observers:
            try:
                observer(ended)
            except Exception:
                _log.exception("an observer of requests failed")
