"""More than the server can do: surplus calls, calls that dribble, callers that leave."""

import contextlib
import socket
import threading
from functools import partial

import grpc
import h2.events
import numpy as np
import pytest
from steady import Steady

from measure.overload.http2_peer import Http2Peer, framed
from model.export import export
from model.weights import from_seed

CLASSES, FEATURES = 4, 8
WORKERS, MOST_WAITING, MOST_STREAMS = 4, 4, 4
BUDGET_BYTES = 256 * 1024
INFER = "/inference.GRPCInferenceService/ModelInfer"
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
LIVE = "/inference.GRPCInferenceService/ServerLive"
CHECK = "/grpc.health.v1.Health/Check"
# What nothing else of its size fits beside.
PADDING = {"note": "n" * (BUDGET_BYTES * 9 // 16)}
ONE_STEP = np.array([[1]])
OPTIONS = (
    *("--workers", WORKERS, "--max-waiting", MOST_WAITING, "--max-streams", MOST_STREAMS),
    # Peers here answer no pings, and are not to be ended for that.
    *("--silent-peer-s", 120),
    *("--receive-s", 1, "--stream-idle-s", 1, "--group-rows", 2),
    *("--max-inflight-bytes", BUDGET_BYTES, "--max-stream-bytes", 2 * BUDGET_BYTES),
)

Code = grpc.StatusCode
# What waits for bytes until its deadline is DEADLINE_EXCEEDED by the client's clock, or, a moment
# earlier, UNAVAILABLE by the server's.
LATE = (Code.DEADLINE_EXCEEDED, Code.UNAVAILABLE)


@pytest.fixture(scope="module")
def process(launch_for_module, graphs):
    export(graphs.folder, "linear", from_seed(CLASSES, FEATURES, 0), "float32", 0)
    graphs.add_steps()
    return launch_for_module(graphs.folder, *OPTIONS)


@pytest.fixture(scope="module")
def caller(call, process):
    return call(process.address)


@pytest.fixture(scope="module")
def another(call, process):
    """Another client, which the server tells from the first by its connection."""
    another = call(process.address)
    assert another.health() == "SERVING"
    return another


@pytest.fixture(scope="module")
def steady(process, caller, another, eventually):
    return Steady.of_linear(process, caller, eventually, CLASSES, FEATURES)


@pytest.fixture(autouse=True)
def _serves_as_before(steady):
    yield
    steady.check()


@pytest.fixture
def connect(process):
    """Make connections that said hello."""
    with contextlib.ExitStack() as stack:

        def connected():
            peer = stack.enter_context(Http2Peer(process.address))
            # Each call is there at once, rather than when the one before is acknowledged.
            peer.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer.hello()
            return peer

        yield connected


def executions(caller):
    return caller.statistics("steps").execution_count


def answered(caller, message):
    """Whether a request is taken; what is refused as surplus is not."""
    try:
        caller.infer(message)
    except grpc.RpcError as error:
        if error.code() is not Code.RESOURCE_EXHAUSTED:
            raise
        return False
    return True


# Who brings nothing.


@pytest.mark.parametrize("sent", [b"", framed(bytes(1000))[:9]], ids=["nothing", "a beginning"])
def test_calls_whose_message_does_not_come_are_ended_and_keep_nobody_out(
    caller, connect, eventually, sent
):
    # As many as there are threads under grpcio, and as many again wait for one.
    calls = 8
    peers = {path: connect() for path in (INFER, LIVE, CHECK)}
    for path, peer in peers.items():
        for _ in range(calls):
            number = peer.call(path)
            peer.h2.send_data(number, sent)
        peer.flush()
    messages = {INFER: caller.message("steps", steps=ONE_STEP), LIVE: b"", CHECK: b""}
    assert not _passes(caller, INFER, messages[INFER])
    for path, peer in peers.items():
        assert _statuses(peer, calls) <= {b"1", b"4"}, path  # CANCELLED, DEADLINE_EXCEEDED
    for path, message in messages.items():
        eventually(partial(_passes, caller, path, message), f"there is room for {path} again")


def _statuses(peer, calls):
    """Read until so many calls have ended; their statuses."""
    ended, statuses = 0, set()
    while ended < calls:
        data = peer.socket.recv(65536)
        assert data
        for event in peer.h2.receive_data(data):
            ended += isinstance(event, h2.events.StreamEnded | h2.events.StreamReset)
            if isinstance(event, h2.events.TrailersReceived | h2.events.ResponseReceived):
                statuses |= {value for name, value in event.headers if name == b"grpc-status"}
        peer.flush()
    assert statuses
    return statuses


def _passes(caller, path, message):
    """Whether a call is answered soon."""
    try:
        caller.channel.unary_unary(path)(message, timeout=0.3)
    except grpc.RpcError as error:
        if error.code() not in (Code.RESOURCE_EXHAUSTED, *LATE):
            raise
        return False
    return True


@pytest.mark.parametrize("dribbles", [False, True])
def test_a_stream_that_brings_no_message_is_ended(connect, dribbles):
    peer = connect()
    number = peer.call(STREAM)
    ended = threading.Event()

    def dribble():
        message = iter(framed(bytes(10_000)))
        while not ended.wait(0.05):
            peer.h2.send_data(number, bytes([next(message)]))
            peer.flush()

    thread = threading.Thread(target=dribble)
    if dribbles:
        thread.start()
    try:
        # DEADLINE_EXCEEDED, as a header that is not compressed.
        assert peer.read_bytes_up_to(b"grpc-status\x014")
    finally:
        ended.set()
        if dribbles:
            thread.join(10)


# More than there is room for.


def test_surplus_requests_are_refused_at_once_and_the_others_are_answered(caller, another):
    message = caller.message("steps", steps=ONE_STEP)
    # One of them holds the worker.
    most = WORKERS + MOST_WAITING - 1
    with caller.busy_worker():
        sent = [caller.infer_later(message) for _ in range(most)]
        surplus = [caller.infer_later(message) for _ in range(5)]
        for one in surplus:
            assert one.code() is Code.RESOURCE_EXHAUSTED
            assert f"{most + 1} unary requests" in one.details()
        assert not any(one.done() for one in sent)
        assert another.health() == "SERVING"
        assert another.control("ServerReady").ready
    for one in sent:
        assert one.result()


def test_streams_over_the_limit_are_refused_and_requests_are_not(caller, process, steady):
    with Http2Peer(process.address) as peer:
        peer.hello()
        for _ in range(MOST_STREAMS):
            peer.call(STREAM)
        number = peer.call(STREAM)
        told = peer.read_bytes_up_to(b"streams are open, the most allowed")
        assert b"grpc-status\x018" in told
        assert number == 2 * MOST_STREAMS + 1
        assert answered(caller, caller.message("steps", steps=ONE_STEP))


# Who leaves.


def test_requests_that_wait_for_bytes_can_be_given_up(caller, another, eventually):
    large = caller.message("steps", parameters=PADDING, steps=ONE_STEP)
    # Another model, whose worker is free, and so small that it fits beside what is held.
    small = another.message("linear", x=np.ones((1, FEATURES), np.float32))
    with caller.busy_worker():
        held = caller.infer_later(large)
        eventually(lambda: not _has_room(another, large), "the bytes are taken")
        waiting = [caller.infer_later(large) for _ in range(3)]
        # It waits behind those that were there first.
        eventually(lambda: not _has_room(another, small), "they wait for bytes")
        for each in waiting:
            each.cancel()
        eventually(lambda: _has_room(another, small), "they wait no longer")
        assert not held.done()
    assert held.result()


def test_what_is_cancelled_deep_in_the_queue_gives_its_bytes_back_within_a_batch(
    caller, another, eventually
):
    large = caller.message("steps", parameters=PADDING, steps=ONE_STEP)
    small = caller.message("steps", steps=ONE_STEP)
    with caller.busy_worker():
        # One client's requests are run in the order they came, so these wait for the first.
        kept = caller.open_stream(iter([small] * 20))
        leaving = caller.open_stream(iter([large]))
        eventually(lambda: not _has_room(another, large), "the bytes are taken")
        leaving.cancel()
        # The other client's turn comes between the batches of the first.
        another.infer(large)
        assert not kept.done()
    assert len(list(kept)) == 20


def _has_room(caller, message):
    """Whether a request is taken and answered soon."""
    try:
        caller.infer(message, timeout=1)
    except grpc.RpcError as error:
        if error.code() not in LATE:
            raise
        return False
    return True


@pytest.mark.parametrize("leave", ["cancel", "reset"])
def test_a_large_request_ends_within_a_batch_of_its_caller_leaving(
    caller, process, eventually, leave
):
    slow = caller.message("steps", steps=np.full((1000, 1), 60_000))
    before = executions(caller)
    with Http2Peer(process.address) as peer:
        peer.hello()
        number = peer.call(INFER)
        peer.h2.send_data(number, framed(slow), end_stream=True)
        peer.flush()
        eventually(lambda: executions(caller) > before, "it runs")
        if leave == "reset":
            peer.reset()
        else:
            peer.h2.reset_stream(number, error_code=8)
            peer.flush()
        # Else this would wait for all of its slices.
        caller.infer(caller.message("steps", steps=ONE_STEP))
    assert executions(caller) - before < 1000 // 8 // 2


def test_a_deadline_that_passes_in_compute_ends_it_within_a_batch(caller):
    slow = caller.message("steps", steps=np.full((1000, 1), 60_000))
    before = executions(caller)
    with pytest.raises(grpc.RpcError) as caught:
        caller.infer(slow, timeout=0.5)
    assert caught.value.code() is Code.DEADLINE_EXCEEDED
    caller.infer(caller.message("steps", steps=ONE_STEP))
    assert executions(caller) - before < 1000 // 8 // 2


# Who wants everything.


def test_one_request_is_answered_while_a_crowd_of_another_client_waits(caller, another):
    message = another.message("steps", steps=np.full((2, 1), 20_000))
    enough = threading.Event()

    def messages():
        yield from [message] * 400
        enough.wait(20)

    crowd = another.open_stream(messages())
    try:
        next(crowd)
        before = executions(caller)
        for _ in range(3):
            caller.infer(caller.message("steps", steps=ONE_STEP))
        # Each waited for the batch under way, and for its own.
        assert executions(caller) - before < 100
    finally:
        enough.set()
        crowd.cancel()
