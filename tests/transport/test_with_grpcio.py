"""Own client and server against grpcio's, and against each other: the same calls, the same ends."""

import threading
import time

import grpc
import numpy as np
import pytest
from transport_services import FAILURES, PATIENCE_S, Peer, open_channel, small_frames_channel

PAIRS = [("grpcio", "own"), ("own", "grpcio"), ("own", "own")]


@pytest.fixture(scope="module")
def peers():
    found = {kind: Peer(kind) for kind in ("own", "grpcio")}
    yield found
    for peer in found.values():
        peer.close()


@pytest.fixture(scope="module", params=PAIRS, ids=lambda pair: f"{pair[0]}-to-{pair[1]}")
def pair(request, peers):
    client, server = request.param
    channel = open_channel(client, peers[server].address)
    yield channel, peers[server], client
    channel.close()


def failure(call, *args, **kwargs):
    with pytest.raises(FAILURES) as caught:
        call(*args, timeout=PATIENCE_S, **kwargs)
    return caught.value


@pytest.mark.parametrize("size", [0, 1, 5, 16_383, 16_384, 65_536, 1_000_003])
def test_a_unary_message_comes_back(pair, size):
    message = np.random.default_rng(size).bytes(size)
    assert pair[0].unary_unary("/test/Echo")(message, timeout=PATIENCE_S) == message


def test_64_mib_come_back(pair):
    message = np.random.default_rng(0).bytes(64 * 2**20)
    assert pair[0].unary_unary("/test/Echo")(message, timeout=PATIENCE_S) == message


def test_a_stream_comes_back_in_order(pair):
    sizes = [0, 3, 100_000, 1, 2**20, 0, 70_000] * 5
    messages = [np.random.default_rng(size).bytes(size) for size in sizes]
    answers = list(pair[0].stream_stream("/test/EchoStream")(iter(messages), timeout=PATIENCE_S))
    assert answers == messages


def test_one_request_is_answered_by_a_stream(pair):
    assert list(pair[0].unary_stream("/test/Repeat")(b"100", timeout=PATIENCE_S)) == [b"100"] * 100
    assert list(pair[0].unary_stream("/test/Repeat")(b"0", timeout=PATIENCE_S)) == []


def test_a_stream_is_answered_by_one_message(pair):
    call = pair[0].stream_unary("/test/Sum")
    assert call(iter([b"a" * 100_000] * 30), timeout=PATIENCE_S) == b"3000000"
    assert call(iter([]), timeout=PATIENCE_S) == b"0"


def test_many_calls_share_a_connection(pair):
    call = pair[0].unary_unary("/test/Echo")
    messages = [np.random.default_rng(size).bytes(size * 997) for size in range(60)]
    answers = [call.future(message, timeout=PATIENCE_S) for message in messages]
    assert [answer.result() for answer in answers] == messages


def test_metadata_goes_both_ways_binary_too(pair):
    every_byte = bytes(range(256))
    sent = (("x-text", "some text, with ~"), ("x-empty-bin", b""), ("x-data-bin", every_byte))
    answer, call = (
        pair[0].unary_unary("/test/Metadata").with_call(b"", timeout=PATIENCE_S, metadata=sent)
    )
    assert bytes(answer).decode() == repr(sorted(sent))
    assert set(sent) <= {tuple(each) for each in call.initial_metadata()}
    assert ("x-trailing-bin", every_byte) in [tuple(each) for each in call.trailing_metadata()]


@pytest.mark.parametrize(
    "text", ["plain", "", "über 100% naïve — 日本語 \N{PILE OF POO}", "line\nbreak\ttab %41"]
)
def test_a_status_keeps_its_text_and_details(pair, text):
    error = failure(pair[0].unary_unary("/test/Fail"), text.encode())
    assert (error.code().name, error.details()) == ("FAILED_PRECONDITION", text)
    trailing = dict(tuple(each) for each in error.trailing_metadata())
    assert trailing["grpc-status-details-bin"] == b"\x00\xff"
    assert trailing["why"] == "test"


def test_an_exception_of_a_method_is_unknown(pair):
    error = failure(pair[0].unary_unary("/test/Raise"), b"")
    assert error.code().name == "UNKNOWN"
    assert "on purpose" in error.details()


def test_an_unknown_method_is_unimplemented(pair):
    assert failure(pair[0].unary_unary("/test/None"), b"").code().name == "UNIMPLEMENTED"


def test_the_server_knows_the_deadline_and_the_peer(pair):
    answer = bytes(pair[0].unary_unary("/test/Describe")(b"", timeout=20)).decode()
    peer, left = answer.split()
    assert peer.startswith("ipv4:127.0.0.1:")
    assert 5 <= int(left) <= 20
    if pair[1].kind == "own":  # grpcio's server knows a deadline in 292 years
        assert bytes(pair[0].unary_unary("/test/Describe")(b"")).decode().split()[1] == "None"


def test_a_deadline_ends_the_call_on_both_sides(pair):
    channel, peer, _ = pair
    peer.methods.cancelled.clear()
    began = time.monotonic()
    with pytest.raises(FAILURES) as caught:
        channel.unary_unary("/test/Wait")(b"", timeout=0.3)
    assert caught.value.code().name == "DEADLINE_EXCEEDED"
    assert time.monotonic() - began < PATIENCE_S
    assert peer.methods.cancelled.wait(PATIENCE_S)


def test_cancelling_reaches_the_method(pair):
    channel, peer, _ = pair
    peer.methods.cancelled.clear()
    peer.methods.waiting.clear()
    call = channel.unary_unary("/test/Wait").future(b"", timeout=PATIENCE_S)
    ended = threading.Event()
    call.add_done_callback(lambda _: ended.set())
    assert peer.methods.waiting.wait(PATIENCE_S)
    call.cancel()
    assert peer.methods.cancelled.wait(PATIENCE_S)
    assert ended.wait(PATIENCE_S)
    assert call.code().name == "CANCELLED"


def test_cancelling_a_stream_ends_its_iteration(pair):
    go_on = threading.Event()

    def requests():
        yield b"one"
        go_on.wait(PATIENCE_S)

    call = pair[0].stream_stream("/test/EchoStream")(requests(), timeout=PATIENCE_S)
    assert next(call) == b"one"
    call.cancel()
    with pytest.raises(FAILURES) as caught:
        next(call)
    go_on.set()
    assert caught.value.code().name == "CANCELLED"


def test_a_stream_may_be_answered_before_its_end(pair):
    go_on = threading.Event()

    def requests():
        yield b"one"
        yield b"two"
        go_on.wait(PATIENCE_S)

    call = pair[0].stream_stream("/test/First")(requests(), timeout=PATIENCE_S)
    assert list(call) == [b"one"]
    go_on.set()
    assert call.code().name == "OK"


@pytest.mark.parametrize("method", ["Echo", "Packed"])
def test_compressed_messages_come_back(pair, method):
    channel, _, client = pair
    gzip = grpc.Compression.Gzip if client == "grpcio" else "gzip"
    message = b"squeeze me " * 100_000
    call = channel.unary_unary(f"/test/{method}")
    assert call(message, timeout=PATIENCE_S, compression=gzip) == message
    assert call(message, timeout=PATIENCE_S) == message


def test_frames_of_16_kib_work_with_either_server(peers):
    message = np.random.default_rng(0).bytes(3_000_000)
    for peer in peers.values():
        with small_frames_channel(peer.address) as channel:
            assert channel.unary_unary("/test/Echo")(message, timeout=PATIENCE_S) == message


def test_a_server_with_small_frames_works_with_either_client(peers):
    message = np.random.default_rng(0).bytes(3_000_000)
    options = [("grpc.http2.max_frame_size", 16_384), ("grpc.http2.write_buffer_size", 4096)]
    with open_channel("grpcio", peers["own"].address, options) as channel:
        assert channel.unary_unary("/test/Echo")(message, timeout=PATIENCE_S) == message


def test_a_closed_channel_says_so(peers):
    channel = open_channel("own", peers["own"].address)
    call = channel.unary_unary("/test/Wait").future(b"")
    assert peers["own"].methods.waiting.wait(PATIENCE_S)
    channel.close()
    assert call.code().name == "CANCELLED"
    with pytest.raises(ValueError, match="closed channel"):
        channel.unary_unary("/test/Echo")(b"")
