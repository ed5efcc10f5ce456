"""Every inference request that ends is counted once, and handed to observers with what it was."""

import contextlib
import time

import grpc
import numpy as np
import pytest
from conftest import GROUP_ROWS, PATIENCE_S, ROWS_MAY_MIX, STEPS_CONFIG

from model.export import export
from model.weights import from_seed
from protos.codec import encode_response
from server.batching.request import Caller
from transport.status import Code

BUDGET_BYTES = 100_000
QUEUE = "dynamic_batching { default_queue_policy { max_queue_size: 2 } }"


@pytest.fixture(scope="module")
def server(serve, graphs):
    export(graphs.folder, "linear", from_seed(4, 8, 0), "float32", 0)
    graphs.add_steps()
    graphs.add_steps("short")
    (graphs.folder / "short" / "config.pbtxt").write_text(f"{STEPS_CONFIG} {ROWS_MAY_MIX} {QUEUE}")
    return serve(
        graphs.folder,
        transport="native",
        group_rows=GROUP_ROWS,
        max_inflight_bytes=BUDGET_BYTES,
        max_message_bytes=2 * BUDGET_BYTES,
    )


@pytest.fixture
def caller(call, server):
    return call(server.address)


@pytest.fixture
def ended(server, eventually):
    """A function that gives the requests that have ended, once there are so many."""
    found = []
    server._request_ends.observe(found.append)

    def wait(count):
        eventually(lambda: len(found) >= count, f"{count} requests have ended")
        assert len(found) == count
        return found

    yield wait
    # What a test has cancelled must not be seen by the next one.
    assert server._pools.wait_until_idle(PATIENCE_S)
    server._request_ends._observers = ()


def linear(caller, rows=2, **more):
    return caller.message("linear", x=np.ones((rows, 8), np.float32), **more)


def steps(caller, model="steps", count=0):
    return caller.message(model, steps=np.full((1, 1), count))


def attempt(function, *arguments, **options):
    with contextlib.suppress(grpc.RpcError):
        function(*arguments, **options)


def test_an_answered_request_has_its_stages_and_sizes(caller, ended):
    message = linear(caller, id="seven")
    method = caller.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    answer = method(message, metadata=[("who", "me")])
    (request,) = ended(1)
    assert (request.method, request.model, request.version) == ("ModelInfer", "linear", "1")
    assert (request.code, request.error, request.refused) == (Code.OK, "", False)
    assert (request.request_id, request.rows) == ("seven", 2)
    assert (request.request_bytes, request.response_bytes) == (len(message), len(answer))
    assert ("who", "me") in request.metadata
    assert "127.0.0.1" in request.peer
    stages = request.timings
    known_ns = stages.queue_ns + stages.assemble_ns + stages.compute_ns + request.encode_ns
    assert 0 < request.decode_ns < known_ns <= request.ended_ns - request.arrived_ns
    assert (stages.batch_rows, stages.closed) == (2, "full")
    assert stages.execution_provider == "CPUExecutionProvider"


def test_each_message_of_a_stream_ends_by_itself(caller, ended):
    wrong = caller.message("linear", x=np.ones((1, 3), np.float32), id="wrong")
    unknown = caller.message("none", x=np.ones((1, 3), np.float32), version="5")
    answers = caller.stream([linear(caller), wrong, b"\xff", unknown, linear(caller, 1)])
    assert [bool(error) for error, _ in answers] == [False, True, True, True, False]
    found = sorted(ended(5), key=lambda each: each.arrived_ns)
    assert {each.method for each in found} == {"ModelStreamInfer"}
    assert [(each.code, each.refused, each.model, each.version) for each in found] == [
        (Code.OK, False, "linear", "1"),
        (Code.INVALID_ARGUMENT, False, "linear", "1"),
        (Code.INVALID_ARGUMENT, True, "", ""),
        (Code.NOT_FOUND, True, "none", "5"),
        (Code.OK, False, "linear", "1"),
    ]
    assert found[1].request_id == "wrong"
    assert "the model takes" in found[1].error


@pytest.mark.parametrize(
    ("data", "code", "model"),
    [
        (b"\xff", Code.INVALID_ARGUMENT, ""),
        (b"x" * (BUDGET_BYTES + 1), Code.RESOURCE_EXHAUSTED, ""),
        (b"x" * (2 * BUDGET_BYTES + 1), Code.RESOURCE_EXHAUSTED, ""),
    ],
)
def test_what_no_model_had_is_refused(caller, ended, data, code, model):
    attempt(caller.raw, "ModelInfer", data)
    (request,) = ended(1)
    assert (request.method, request.refused) == ("ModelInfer", True)
    assert (request.code, request.model) == (code, model)
    assert request.ended_ns >= request.arrived_ns


def test_a_message_over_the_budget_is_refused_and_its_stream_goes_on(caller, ended):
    answers = caller.stream([b"x" * (BUDGET_BYTES + 1), linear(caller)])
    assert [bool(error) for error, _ in answers] == [True, False]
    first, second = ended(2)
    assert (first.code, first.refused) == (Code.RESOURCE_EXHAUSTED, True)
    assert first.request_bytes == BUDGET_BYTES + 1
    assert (second.code, second.refused) == (Code.OK, False)


def test_deadlines_and_cancellations_end_requests_that_wait(server, caller, ended, eventually):
    def failures():
        totals = server._repository.totals.read()["steps", "1"]
        return dict(totals.counts.fail_reasons)

    reasons = failures()
    with caller.busy_worker() as busy:
        attempt(caller.infer, steps(caller), timeout=0.2)
        (late,) = ended(1)
        assert late.code == Code.DEADLINE_EXCEEDED
        busy_too = server._repository.get("steps")
        # It is dropped from the queue once the worker looks there.
        eventually(lambda: busy_too.waiting == 1, "one request is left")
        waiting = caller.infer_later(steps(caller))
        stream = caller.open_stream(iter([steps(caller)] * 3))
        eventually(lambda: busy_too.waiting == 5, "five requests wait")
        waiting.cancel()
        stream.cancel()
        assert [each.code for each in ended(5)[1:]] == [Code.CANCELLED] * 4
        busy.cancel()
        assert ended(6)[5].code == Code.CANCELLED
    after = failures()
    assert after == {**reasons, "CANCELED": reasons.get("CANCELED", 0) + 6}


def test_a_full_queue_rejects(server, caller, ended, eventually):
    with caller.busy_worker(model="short"):
        waiting = caller.infer_later(steps(caller, "short"))
        model = server._repository.get("short")
        eventually(lambda: model.waiting == 2, "two requests wait")
        attempt(caller.infer, steps(caller, "short"))
        assert ended(1)[0].code == Code.UNAVAILABLE
        assert dict(model.statistics.counts.fail_reasons) == {"REJECTED": 1}
    waiting.cancel()


def test_a_stream_that_an_error_ends_ends_its_other_requests(caller, ended):
    impatient = caller.message(
        "steps", steps=np.zeros((1, 1), np.int64), parameters={"timeout": 300_000}
    )
    with caller.busy_worker():
        messages = [impatient, steps(caller), steps(caller)]
        stream = caller.open_stream(iter(messages), errors_end_it=True)
        with pytest.raises(grpc.RpcError):
            next(stream)
        assert {each.code for each in ended(len(messages))} == {Code.UNAVAILABLE}


def test_a_request_that_two_threads_end_is_counted_once(server, caller, ended):
    inference = server._servicer._inference
    counts = server._repository.get("linear").statistics.counts
    before = counts.succeeded + counts.fail.count
    for first_is_answered in (True, False):
        message = inference.decode(linear(caller), time.monotonic_ns(), Caller())
        pending = inference.begin(message, time.monotonic_ns(), Caller())
        assert pending.request.future.result(PATIENCE_S).outputs
        if first_is_answered:
            inference.finish(pending, encode_response)
        inference.abandon(pending)
        inference.finish(pending, encode_response)
    assert [each.code for each in ended(2)] == [Code.OK, Code.CANCELLED]
    assert counts.succeeded + counts.fail.count == before + 2


def test_an_observer_that_fails_harms_no_request(server, caller, caplog):
    def observe(request):
        raise ArithmeticError("on purpose")

    server._request_ends.observe(observe)
    try:
        assert caller.infer(linear(caller)).model_name == "linear"
        assert len(caller.stream([linear(caller)] * 2)) == 2
    finally:
        server._request_ends._observers = ()
    assert "an observer of requests failed" in caplog.text


def test_requests_end_once_with_grpcio_too(serve, graphs, server, call, eventually):
    found = []
    other = serve(graphs.folder, group_rows=GROUP_ROWS, transport="grpcio")
    other._request_ends.observe(found.append)
    caller = call(other.address)
    caller.infer(linear(caller))
    attempt(caller.raw, "ModelInfer", b"\xff")
    attempt(caller.infer, linear(caller, version="9"))
    caller.stream([linear(caller), caller.message("linear", x=np.ones((1, 3), np.float32))])
    eventually(lambda: len(found) == 5, "five requests have ended")
    codes = [(each.code, each.refused) for each in found]
    assert sorted(codes) == [
        (Code.OK, False),
        (Code.OK, False),
        (Code.INVALID_ARGUMENT, False),
        (Code.INVALID_ARGUMENT, True),
        (Code.NOT_FOUND, True),
    ]
    with caller.busy_worker() as busy:
        stream = caller.open_stream(iter([steps(caller)] * 3))
        model = other._repository.get("steps")
        eventually(lambda: model.waiting == 4, "four requests wait")
        stream.cancel()
        busy.cancel()
        eventually(lambda: len(found) == 9, "four more have ended")
    assert [each.code for each in found[5:]] == [Code.CANCELLED] * 4
    assert model.statistics.counts.fail.count == 4
