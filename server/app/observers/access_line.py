"""A line of the access log: what it says of a request or a call that has ended."""

import time
from typing import NamedTuple

from server.app import logs
from server.rpc.accounting.ended_request import EndedRequest
from server.rpc.accounting.stages import Stages, stages, total_ns
from server.rpc.tracing import traceparent
from transport.serving.ended_call import EndedCall
from transport.status import Code

LOGGER = "access"
# Clients choose these texts; a line that waits holds them.
_LONGEST_NAME = 200
_LONGEST_ERROR = 300


class RequestLine(NamedTuple):
    """A line of an inference request, before it is text: all that clients send is bounded."""

    time_s: float
    slow: bool
    method: str
    peer: str
    code: Code
    error: str
    model: str
    version: str
    request_id: str
    trace_id: str
    rows: int
    batch_rows: int
    closed: str
    request_bytes: int
    response_bytes: int
    stages: Stages
    total_ns: int

    @classmethod
    def of(cls, request: EndedRequest, *, slow: bool) -> "RequestLine":
        """What its line says; `slow`: it took too long."""
        timings = request.timings
        return cls(
            time_s=time.time(),
            slow=slow,
            method=request.method,
            peer=request.peer,
            code=request.code,
            error=logs.bounded(request.error, _LONGEST_ERROR),
            model=logs.bounded(request.model, _LONGEST_NAME),
            version=logs.bounded(request.version, _LONGEST_NAME),
            request_id=logs.bounded(request.request_id, _LONGEST_NAME),
            trace_id=_trace_id(request),
            rows=request.rows,
            batch_rows=timings.batch_rows,
            closed=timings.closed,
            request_bytes=request.request_bytes,
            response_bytes=request.response_bytes,
            stages=stages(request),
            total_ns=total_ns(request),
        )

    def text(self) -> str:
        """The line."""
        return logs.line(
            {
                "time": logs.time_text(self.time_s),
                "level": "WARNING" if self.slow else "INFO",
                "logger": LOGGER,
                "message": "slow request" if self.slow else "request",
                "method": self.method,
                "code": self.code.name,
                "error": self.error,
                "model": self.model,
                "version": self.version,
                "request_id": self.request_id,
                "trace_id": self.trace_id,
                "peer": self.peer,
                "rows": self.rows,
                "batch_rows": self.batch_rows,
                "closed": self.closed,
                "request_bytes": self.request_bytes,
                "response_bytes": self.response_bytes,
                **{f"{name}_ms": _ms(ns) for name, ns in self.stages._asdict().items()},
                "total_ms": _ms(self.total_ns),
            }
        )


class CallLine(NamedTuple):
    """A line of any other call, or of a stream as a whole."""

    time_s: float
    method: str
    peer: str
    code: Code
    error: str
    trace_id: str
    total_ns: int

    @classmethod
    def of(cls, call: EndedCall) -> "CallLine":
        """What its line says."""
        return cls(
            time_s=time.time(),
            method=logs.bounded(call.path, _LONGEST_NAME),
            peer=call.peer,
            code=call.status.code,
            error=logs.bounded(call.status.text, _LONGEST_ERROR),
            trace_id=_trace_id(call),
            total_ns=int((time.monotonic() - call.began_s) * 1e9),
        )

    def text(self) -> str:
        """The line."""
        return logs.line(
            {
                "time": logs.time_text(self.time_s),
                "level": "INFO",
                "logger": LOGGER,
                "message": "call",
                "method": self.method,
                "code": self.code.name,
                "error": self.error,
                "trace_id": self.trace_id,
                "peer": self.peer,
                "total_ms": _ms(self.total_ns),
            }
        )


def _trace_id(ended: EndedRequest | EndedCall) -> str:
    found = traceparent.parent(ended.metadata)
    return "" if found is None else found.trace_id


def _ms(ns: int) -> float:
    return round(ns / 1e6, 3)
