"""When the bytes of a client's call passed the socket."""

import contextlib
import queue
import time

import numpy as np
import pytest
from hyperframe.frame import DataFrame, HeadersFrame, PingFrame, SettingsFrame, WindowUpdateFrame
from transport_raw import RawServer, answer

from client.client import Client
from client.connection.call_times import CallTimes
from client.connection.calls import Connection
from measure.core.stages import RequestTimes
from model.export import export
from model.weights import from_seed
from protos.codec import (
    InferRequest,
    InferResponse,
    decode_response,
    encode_response,
    request_pieces,
)
from protos.tensors import Tensor

PATIENCE_S = 20
ANSWER = encode_response(InferResponse("m", (Tensor.of("y", np.ones(64, np.float32)),)))
FEATURES = 4096
STAGES = ("receive_ns", "decode_ns", "queue_ns", "assemble_ns", "compute_ns", "handover_ns")
TIMED = {"timings": True}


@pytest.fixture(scope="module")
def client(serve, graphs):
    export(graphs.folder, "linear_argmax", from_seed(4, FEATURES, 0), "float32", 0)
    server = serve(graphs.folder, transport="native")
    with Client(server.address) as one:
        yield one


@pytest.fixture
def peer():
    server = RawServer()
    yield server
    server.close()


@pytest.mark.parametrize("rows", [1, 512], ids=["16 KiB", "8 MiB"])
def test_the_stages_of_a_request_fit_into_the_round_trip_that_the_client_measures(client, rows):
    x = np.ones((rows, FEATURES), np.float32)
    for _ in range(10):
        times = RequestTimes()
        response = client.infer({"x": x}, ["label"], TIMED, times=times.call)
        times.received()
        round_trip_ns = times.received_ns - times.began_ns
        stages = [response.parameters[stage] for stage in STAGES]
        assert 0 < times.send_ns <= round_trip_ns
        # The server receives while the client sends: they are not added.
        assert 0 < times.receive_ns < sum(stages) + times.receive_ns <= round_trip_ns


@pytest.fixture
def begin(peer):
    """Send a request of so many bytes to the peer; its times, the outcome to wait for, the peer."""
    with contextlib.closing(Connection((peer.address,))) as connection:

        def send(size):
            tensor = Tensor.of("x", np.ones(size // 4, np.float32))
            pieces = request_pieces(InferRequest("m", (tensor,)))
            outcomes = queue.SimpleQueue()
            times = RequestTimes()
            connection.infer_later(pieces, PATIENCE_S, outcomes.put, times.call)
            raw = peer.accept({SettingsFrame.INITIAL_WINDOW_SIZE: 2**31 - 1})
            raw.send(WindowUpdateFrame(0, window_increment=2**31 - 1 - 65535))
            return times, outcomes, raw

        yield send


def until_end_of_request(raw):
    while "END_STREAM" not in raw.until(DataFrame).flags:
        pass


def test_a_request_that_the_server_does_not_read_is_being_sent(begin):
    times, outcomes, raw = begin(32 * 2**20)  # more than sockets hold
    # The first bytes are there.
    raw.until(HeadersFrame)
    began_ns = time.monotonic_ns()
    with pytest.raises(queue.Empty):
        outcomes.get(timeout=0.05)
    assert times.send_ns is None
    passed_ns = time.monotonic_ns() - began_ns
    until_end_of_request(raw)
    answer(raw, 1, ANSWER)
    assert decode_response(outcomes.get(timeout=PATIENCE_S))["y"].shape == (64,)
    assert times.send_ns >= passed_ns


def test_an_answer_that_comes_slowly_began_with_its_first_byte(begin):
    times, outcomes, raw = begin(16)
    until_end_of_request(raw)
    received_ns = time.monotonic_ns()
    start = raw.encoder.encode([(":status", "200"), ("content-type", "application/grpc")])
    data = raw.message(1, ANSWER, end_stream=False).data
    raw.send(
        HeadersFrame(1, start, flags=["END_HEADERS"]),
        DataFrame(1, data[:9]),
        PingFrame(0, b"12345678"),
    )
    while "ACK" not in raw.until(PingFrame).flags:
        pass
    half_ns = time.monotonic_ns()
    with pytest.raises(queue.Empty):
        outcomes.get(timeout=0.05)
    passed_ns = time.monotonic_ns() - half_ns
    trailers = raw.encoder.encode([("grpc-status", "0")])
    raw.send(
        DataFrame(1, data[9:]),
        HeadersFrame(1, trailers, flags=["END_HEADERS", "END_STREAM"]),
    )
    assert decode_response(outcomes.get(timeout=PATIENCE_S))["y"].shape == (64,)
    times.received()
    assert received_ns <= times.call.answer_began_ns <= half_ns
    assert times.receive_ns >= passed_ns


def test_each_answer_of_a_stream_has_its_own_begin(client):
    pieces = [
        request_pieces(
            InferRequest("linear_argmax", (Tensor.of("x", np.ones((1, FEATURES), np.float32)),))
        )
    ] * 3
    times = CallTimes()
    began = [time.monotonic_ns()]
    for _ in client._connection.infer_stream(iter(pieces), PATIENCE_S, times):
        began.append(times.answer_began_ns)
    assert began == sorted(set(began))
    assert len(began) == 4
    assert began[-1] <= time.monotonic_ns()
