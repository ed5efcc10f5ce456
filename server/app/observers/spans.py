"""Make the spans of a request that has ended, named as Triton names its own.

InferRequest
    receive, decode
    the model's name
        queue, assemble, compute
    encode
"""

import time
from collections.abc import Mapping

from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    set_span_in_context,
)

from server.rpc.accounting.ended_request import EndedRequest
from server.rpc.accounting.stages import stages, total_ns
from server.rpc.tracing.traceparent import TraceParent
from transport.status import Code

ROOT = "InferRequest"
# Of a server's span, others are the client's doing.
_ERRORS = frozenset(
    (
        Code.UNKNOWN,
        Code.DEADLINE_EXCEEDED,
        Code.UNIMPLEMENTED,
        Code.INTERNAL,
        Code.UNAVAILABLE,
        Code.DATA_LOSS,
    )
)

Value = str | int


def record(tracer: Tracer, request: EndedRequest, parent: TraceParent | None) -> None:
    """Hand the spans of a request to `tracer`; the first is a child of `parent`'s."""
    # One for all its spans, so that a step of the wall clock tears none apart.
    offset_ns = time.time_ns() - time.monotonic_ns()
    took = stages(request)
    arrived_ns = request.arrived_ns + offset_ns
    ended_ns = request.ended_ns + offset_ns
    decoded_ns = arrived_ns + took.decode
    computed_ns = ended_ns - took.encode

    root = tracer.start_span(
        ROOT,
        _remote(parent),
        SpanKind.SERVER,
        _attributes(request),
        start_time=ended_ns - total_ns(request),
    )
    if request.code in _ERRORS:
        root.set_status(Status(StatusCode.ERROR, request.error))
    _stage(tracer, "receive", root, arrived_ns - took.receive, arrived_ns)
    _stage(tracer, "decode", root, arrived_ns, decoded_ns)
    if not request.refused:
        model = _child(tracer, request.model, root, decoded_ns)
        began_ns = decoded_ns
        for name, ns in (
            ("queue", took.queue),
            ("assemble", took.assemble),
            ("compute", took.compute),
        ):
            # Sums may be longer: batches of one request may have run at the same time.
            done_ns = min(began_ns + ns, computed_ns)
            _stage(tracer, name, model, began_ns, done_ns)
            began_ns = done_ns
        model.end(computed_ns)
    _stage(tracer, "encode", root, computed_ns, ended_ns)
    root.end(ended_ns)


def _remote(parent: TraceParent | None) -> Context:
    if parent is None:
        return Context()
    span = SpanContext(
        int(parent.trace_id, 16),
        int(parent.span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
    )
    return set_span_in_context(NonRecordingSpan(span), Context())


def _child(tracer: Tracer, name: str, parent: Span, began_ns: int) -> Span:
    return tracer.start_span(name, set_span_in_context(parent, Context()), start_time=began_ns)


def _stage(tracer: Tracer, name: str, parent: Span, began_ns: int, ended_ns: int) -> None:
    """A span of a stage, if the request reached it."""
    if ended_ns > began_ns:
        _child(tracer, name, parent, began_ns).end(ended_ns)


def _attributes(request: EndedRequest) -> Mapping[str, Value]:
    timings = request.timings
    attributes: dict[str, Value] = {
        "rpc.system": "grpc",
        "rpc.service": "inference.GRPCInferenceService",
        "rpc.method": request.method,
        "rpc.grpc.status_code": int(request.code),
        "triton.model_name": request.model,
        "triton.model_version": request.version,
        "triton.request_id": request.request_id,
        "argmax.rows": request.rows,
        "argmax.request_bytes": request.request_bytes,
        "argmax.response_bytes": request.response_bytes,
        "argmax.batch_rows": timings.batch_rows,
        "argmax.close_reason": timings.closed,
        "argmax.execution_provider": timings.execution_provider,
    }
    # What is not known is left out.
    return {name: value for name, value in attributes.items() if value != ""}
