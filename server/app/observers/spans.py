"""The spans of a request that has ended, as messages of OTLP, named as Triton names its own.

InferRequest
    receive, decode
    the model's name
        queue, assemble, compute
    encode

Made as messages at once: OpenTelemetry's span objects, and encoding them, take five times as long,
of the interpreter that answers requests.
"""

import random
import time
from collections.abc import Iterator

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, SpanFlags, Status

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
_TRACE_ID_BYTES, _SPAN_ID_BYTES = 16, 8
_SAMPLED = 1
_LOCAL_PARENT = SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK | _SAMPLED
_REMOTE_PARENT = _LOCAL_PARENT | SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK


def of_request(request: EndedRequest, parent: TraceParent | None) -> list[Span]:
    """The spans of a request; the first is a child of `parent`'s, or has no parent."""
    # One for all its spans, so that a step of the wall clock tears none apart.
    offset_ns = time.time_ns() - time.monotonic_ns()
    took = stages(request)
    arrived_ns = request.arrived_ns + offset_ns
    ended_ns = request.ended_ns + offset_ns
    decoded_ns = arrived_ns + took.decode
    computed_ns = ended_ns - took.encode

    root = Span(
        trace_id=_trace_id(parent),
        span_id=random.randbytes(_SPAN_ID_BYTES),
        parent_span_id=b"" if parent is None else bytes.fromhex(parent.span_id),
        flags=_LOCAL_PARENT if parent is None else _REMOTE_PARENT,
        name=ROOT,
        kind=Span.SPAN_KIND_SERVER,
        attributes=_attributes(request),
        start_time_unix_nano=ended_ns - total_ns(request),
        end_time_unix_nano=ended_ns,
    )
    if request.code in _ERRORS:
        root.status.code = Status.STATUS_CODE_ERROR
        root.status.message = request.error
    whole = [root]
    reached = [
        _child(root, "receive", arrived_ns - took.receive, arrived_ns),
        _child(root, "decode", arrived_ns, decoded_ns),
        _child(root, "encode", computed_ns, ended_ns),
    ]
    if not request.refused:
        model = _child(root, request.model, decoded_ns, computed_ns)
        whole.append(model)
        began_ns = decoded_ns
        for name, ns in (
            ("queue", took.queue),
            ("assemble", took.assemble),
            ("compute", took.compute),
        ):
            # Sums may be longer: batches of one request may have run at the same time.
            done_ns = min(began_ns + ns, computed_ns)
            reached.append(_child(model, name, began_ns, done_ns))
            began_ns = done_ns
    # Without the stages that the request did not reach.
    return [*whole, *filter(_lasted, reached)]


def _lasted(span: Span) -> bool:
    return span.end_time_unix_nano > span.start_time_unix_nano


def _trace_id(parent: TraceParent | None) -> bytes:
    return random.randbytes(_TRACE_ID_BYTES) if parent is None else bytes.fromhex(parent.trace_id)


def _child(parent: Span, name: str, began_ns: int, ended_ns: int) -> Span:
    return Span(
        trace_id=parent.trace_id,
        span_id=random.randbytes(_SPAN_ID_BYTES),
        parent_span_id=parent.span_id,
        flags=_LOCAL_PARENT,
        name=name,
        kind=Span.SPAN_KIND_INTERNAL,
        start_time_unix_nano=began_ns,
        end_time_unix_nano=ended_ns,
    )


def _attributes(request: EndedRequest) -> Iterator[KeyValue]:
    timings = request.timings
    texts = {
        "rpc.system": "grpc",
        "rpc.service": "inference.GRPCInferenceService",
        "rpc.method": request.method,
        "triton.model_name": request.model,
        "triton.model_version": request.version,
        "triton.request_id": request.request_id,
        "argmax.close_reason": timings.closed,
        "argmax.execution_provider": timings.execution_provider,
    }
    numbers = {
        "rpc.grpc.status_code": int(request.code),
        "argmax.rows": request.rows,
        "argmax.request_bytes": request.request_bytes,
        "argmax.response_bytes": request.response_bytes,
        "argmax.batch_rows": timings.batch_rows,
    }
    for name, text in texts.items():
        # What is not known is left out.
        if text:
            yield KeyValue(key=name, value=AnyValue(string_value=text))
    for name, number in numbers.items():
        yield KeyValue(key=name, value=AnyValue(int_value=number))
