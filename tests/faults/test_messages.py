"""Messages that say they are very large, or become so once they are unpacked."""

import functools
import itertools
import select
import struct
import zlib

import grpc
import numpy as np
import pytest
from steady import MOST_GROWTH_BYTES, Steady

from measure.overload.http2_peer import Http2Peer, framed
from model.export import export
from model.weights import from_seed

CLASSES, FEATURES = 4, 8
MIB, GIB = 2**20, 2**30
MOST_MESSAGE_BYTES = 4 * MIB
INFER = "/inference.GRPCInferenceService/ModelInfer"
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
LIVE = "/inference.GRPCInferenceService/ServerLive"
CHECK = "/grpc.health.v1.Health/Check"
# As a header that is not compressed.
RESOURCE_EXHAUSTED = b"grpc-status\x018"


@pytest.fixture(scope="module")
def process(launch_for_module, graphs):
    export(graphs.folder, "linear", from_seed(CLASSES, FEATURES, 0), "float32", 0)
    return launch_for_module(graphs.folder, "--max-message-bytes", MOST_MESSAGE_BYTES)


@pytest.fixture(scope="module")
def caller(call, process):
    return call(process.address)


@pytest.fixture(scope="module")
def steady(process, caller, eventually):
    return Steady.of_linear(process, caller, eventually, CLASSES, FEATURES)


@pytest.fixture(autouse=True)
def _serves_as_before(steady):
    with steady.no_peak():
        yield
    steady.check()


@pytest.fixture
def peer(process):
    """A connection that said hello."""
    with Http2Peer(process.address) as peer:
        peer.hello()
        yield peer


@functools.cache
def bomb(expanded_bytes):
    """Zeros as gzip writes them, a thousandth of the size."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    zeros = bytes(MIB)
    # What follows a full flush stands for itself, so it may come as often as one likes.
    piece = packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)
    crc = 0
    for _ in range(expanded_bytes // MIB):
        crc = zlib.crc32(zeros, crc)
    end = packer.flush(zlib.Z_FINISH) + struct.pack("<II", crc, expanded_bytes % 2**32)
    header = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    return header + piece * (expanded_bytes // MIB) + end


def sent_until_refused(peer, number, pieces):
    """Send pieces of a message as the server takes them; bytes sent until it refused it."""
    sent, said = 0, b""
    for piece in pieces:
        while _is_told(peer) or peer.h2.local_flow_control_window(number) < len(piece):
            news = peer.socket.recv(65536)
            assert news, said
            said += news
            if RESOURCE_EXHAUSTED in said:
                return sent
            peer.h2.receive_data(news)
        peer.h2.send_data(number, piece)
        peer.flush()
        sent += len(piece)
    assert RESOURCE_EXHAUSTED in said + peer.read_bytes_up_to(RESOURCE_EXHAUSTED)
    return sent


def _is_told(peer):
    return select.select([peer.socket], [], [], 0)[0]


@pytest.mark.parametrize("path", [INFER, STREAM, LIVE, CHECK])
@pytest.mark.parametrize("announced", [MOST_MESSAGE_BYTES + 1, GIB, 4 * GIB - 1])
@pytest.mark.parametrize("flag", [b"\0", b"\1"], ids=["plain", "packed"])
def test_a_message_that_says_it_is_over_the_limit_is_refused_unsent(peer, path, announced, flag):
    number = peer.call(path, ("grpc-encoding", "gzip"))
    peer.h2.send_data(number, flag + struct.pack(">I", announced))
    peer.flush()
    peer.read_bytes_up_to(RESOURCE_EXHAUSTED)


@pytest.mark.parametrize("path", [INFER, STREAM, LIVE, CHECK])
def test_a_message_that_is_sent_all_the_same_is_not_taken(peer, path):
    number = peer.call(path)
    peer.h2.send_data(number, b"\0" + struct.pack(">I", GIB))
    piece = bytes(16 * 1024)
    sent = sent_until_refused(peer, number, itertools.repeat(piece, GIB // len(piece)))
    # As much as is on its way at once.
    assert sent < MOST_GROWTH_BYTES


@pytest.mark.parametrize(
    ("path", "expanded_bytes"),
    [(INFER, 4 * GIB), (INFER, GIB), (STREAM, GIB), (LIVE, GIB), (CHECK, GIB)],
)
def test_a_message_that_expands_beyond_the_limit_is_refused(peer, path, expanded_bytes):
    send_bomb(peer, path, expanded_bytes)


def send_bomb(peer, path, expanded_bytes):
    """Send it on a call; returns once it is refused."""
    packed = bomb(expanded_bytes)
    number = peer.call(path, ("grpc-encoding", "gzip"))
    message = b"\1" + framed(packed)[1:]
    size = 16 * 1024
    sent_until_refused(
        peer, number, (message[at : at + size] for at in range(0, len(message), size))
    )


@pytest.mark.parametrize("compression", [None, grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_a_client_of_grpc_is_told_that_its_message_is_over_the_limit(caller, compression):
    send = caller.channel.unary_unary(INFER)
    with pytest.raises(grpc.RpcError) as caught:
        send(bytes(64 * MIB), compression=compression, timeout=20)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "larger than" in caught.value.details()


@pytest.mark.parametrize("path", [STREAM, CHECK])
def test_what_a_bomb_takes_up_to_a_high_limit_is_given_back(path, launch, graphs, call, eventually):
    process = launch(graphs.folder)
    caller = call(process.address)
    steady = Steady.of_linear(process, caller, eventually, CLASSES, FEATURES)
    with Http2Peer(process.address) as peer:
        peer.hello()
        send_bomb(peer, path, GIB)
    steady.check()


def test_the_bomb_would_go_off():
    assert zlib.decompress(bomb(3 * MIB), wbits=31) == bytes(3 * MIB)


def test_a_packed_message_within_the_limit_is_read(caller):
    x = np.zeros((1000, FEATURES), np.float32)
    message = caller.message("linear", outputs=["label"], x=x)
    send = caller.channel.unary_unary(INFER)
    assert send(message, compression=grpc.Compression.Gzip, timeout=20)


def test_a_health_check_that_brings_no_message_is_not_waited_for_as_others_are(peer):
    for _ in range(4):
        peer.call(CHECK)
    # CANCELLED or DEADLINE_EXCEEDED, long before the 60 s of --receive-s, and before the connection
    # is given up.
    said = b""
    while b"grpc-status\x011" not in said and b"grpc-status\x014" not in said:
        data = peer.socket.recv(65536)
        assert data
        said += data
