"""Count each inference request once, when it ends, and hand it to observers."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Sequence

from protos.codec import InferRequest
from server.batching.request import Caller, Timings
from server.batching.statistics import FailReason
from server.loaded_model.model import Model
from server.rpc import status
from server.rpc.accounting.ended_request import EndedRequest, OnRequestEnded, Wants
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
        self._observers: tuple[tuple[OnRequestEnded, Wants | None], ...] = ()
        self._lock = threading.Lock()
        self._refused: Counter[Code] = Counter()

    def observe(self, observer: OnRequestEnded, wants: Wants | None = None) -> None:
        """Call `observer` with each request that ends from now on, in the thread that ended it.

        With `wants`, only with those that it wants. Both must be quick: they may hold up the I/O
        thread, or the worker of a model.
        """
        self._observers = (*self._observers, (observer, wants))

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
        if self._observers and (takers := self._takers(pending.model.name, pending.metadata)):
            ended = _of_pending(
                pending, Code.OK, "", done_ns, timings, done_ns - computed_ns, response_bytes
            )
            _report(takers, ended)

    def failed(self, pending: Pending, ended: Status) -> None:
        """Its client gets `ended`, or has left."""
        if not pending.claim():
            return
        now_ns = time.monotonic_ns()
        request = pending.request
        reason = _REASONS.get(ended.code, FailReason.OTHER)
        pending.model.statistics.failed(now_ns - request.arrived_ns, reason)
        if self._observers and (takers := self._takers(pending.model.name, pending.metadata)):
            _report(takers, _of_pending(pending, ended.code, ended.text, now_ns, request.timings))

    def rejected(
        self, message: InferRequest, model: Model, caller: Caller, arrived_ns: int, error: Exception
    ) -> None:
        """The model did not take the message."""
        now_ns = time.monotonic_ns()
        ended = status.described(error)
        reason = _REASONS.get(ended.code, FailReason.OTHER)
        model.statistics.failed(now_ns - arrived_ns, reason)
        if takers := self._takers(model.name, caller.metadata):
            _report(
                takers,
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
                ),
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
        # Clients may invent models: one that no model had counts with all.
        if takers := self._takers("", caller.metadata):
            _report(
                takers,
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
                ),
            )

    def _takers(
        self, model: str, metadata: Sequence[tuple[str, str | bytes]]
    ) -> list[OnRequestEnded]:
        """Who wants a request that ended, before it is described."""
        return [
            observer
            for observer, wants in self._observers
            if wants is None or wants(model, metadata)
        ]


def _of_pending(
    pending: Pending,
    code: Code,
    error: str,
    ended_ns: int,
    timings: Timings,
    encode_ns: int = 0,
    response_bytes: int = 0,
) -> EndedRequest:
    request = pending.request
    return EndedRequest(
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


def _report(takers: Sequence[OnRequestEnded], ended: EndedRequest) -> None:
    for observer in takers:
        try:
            observer(ended)
        except Exception:
            _log.exception("an observer of requests failed")
