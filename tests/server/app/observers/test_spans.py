"""Spans as messages of OTLP."""

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from server.app.observers import spans
from server.batching.request import Timings
from server.rpc.accounting.ended_request import EndedRequest
from server.rpc.tracing.traceparent import TraceParent
from transport.status import Code

PARENT = TraceParent("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", sampled=True)
HAS_IS_REMOTE, IS_REMOTE, SAMPLED = 0x100, 0x200, 1


def ended(code=Code.OK, error="", refused=False):
    return EndedRequest(
        method="ModelInfer",
        peer="ipv4:127.0.0.1:1",
        metadata=(),
        model="linear",
        version="1",
        refused=refused,
        request_id="",
        code=code,
        error=error,
        arrived_ns=10_000,
        ended_ns=20_000,
        receive_ns=500,
        decode_ns=1_000,
        encode_ns=300,
        timings=Timings(queue_ns=3_000, assemble_ns=400, compute_ns=5_000),
    )


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (Code.OK, Status.STATUS_CODE_UNSET),
        (Code.INVALID_ARGUMENT, Status.STATUS_CODE_UNSET),
        (Code.INTERNAL, Status.STATUS_CODE_ERROR),
        (Code.DEADLINE_EXCEEDED, Status.STATUS_CODE_ERROR),
    ],
)
def test_a_span_is_an_error_if_the_server_failed(code, status):
    root, *rest = spans.of_request(ended(code, "not done" if code else ""), None)
    assert root.status.code == status
    assert root.status.message == ("not done" if status == Status.STATUS_CODE_ERROR else "")
    assert {each.status.code for each in rest} == {Status.STATUS_CODE_UNSET}


def test_only_the_parent_of_the_first_is_remote():
    root, *rest = spans.of_request(ended(), PARENT)
    assert root.flags == HAS_IS_REMOTE | IS_REMOTE | SAMPLED
    assert {each.flags for each in rest} == {HAS_IS_REMOTE | SAMPLED}


def test_each_request_without_a_parent_has_a_trace_of_its_own():
    found = [spans.of_request(ended(), None) for _ in range(2)]
    traces = {span.trace_id for each in found for span in each}
    assert {len(each) for each in traces} == {16}
    assert len(traces) == 2
    ids = {span.span_id for each in found for span in each}
    assert len(ids) == sum(map(len, found))


def test_a_request_that_no_model_had_has_no_span_of_one():
    names = [span.name for span in spans.of_request(ended(refused=True), None)]
    assert names == ["InferRequest", "receive", "decode", "encode"]
