"""Peers that fall silent, stall, flood or talk nonsense, frame by frame."""

import contextlib
import itertools
import time

import grpc
import h2.events
import pytest
from hyperframe.frame import DataFrame, PingFrame, SettingsFrame
from steady import Steady

from measure.overload.http2_floods import FLOODS
from measure.overload.http2_peer import Http2Peer
from model.export import export
from model.weights import from_seed

CLASSES, FEATURES = 4, 8
SILENT_PEER_S = 1
MOST_CONNECTIONS = 20
INFER = "/inference.GRPCInferenceService/ModelInfer"
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
CHECK = "/grpc.health.v1.Health/Check"
OPTIONS = (
    *("--workers", 4, "--max-waiting", 4, "--max-streams", 4),
    *("--silent-peer-s", SILENT_PEER_S, "--max-connections", MOST_CONNECTIONS),
)

# As a header that is not compressed.
RESOURCE_EXHAUSTED = b"grpc-status\x018"

Code = grpc.StatusCode


@pytest.fixture(scope="module")
def process(launch_for_module, graphs):
    export(graphs.folder, "linear", from_seed(CLASSES, FEATURES, 0), "float32", 0)
    return launch_for_module(graphs.folder, *OPTIONS)


@pytest.fixture(scope="module")
def caller(call, process):
    return call(process.address)


@pytest.fixture(scope="module")
def steady(process, caller, eventually):
    return Steady.of_linear(process, caller, eventually, CLASSES, FEATURES)


@pytest.fixture(autouse=True)
def _serves_as_before(steady):
    yield
    steady.check()


@pytest.fixture
def peer(process):
    """A connection that said hello."""
    with Http2Peer(process.address) as peer:
        peer.hello()
        yield peer


def test_connections_that_say_no_hello_or_half_of_it_are_closed(process):
    with Http2Peer(process.address) as silent, Http2Peer(process.address) as half:
        half.socket.sendall(b"PRI * HTTP/2.0\r\n")
        silent.read_bytes_to_the_end()
        half.read_bytes_to_the_end()


@pytest.mark.parametrize(
    "said",
    [b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"],
    ids=["HTTP/1.1", "TLS"],
)
def test_another_protocol_is_closed(process, said):
    with Http2Peer(process.address) as peer:
        peer.socket.sendall(said + bytes(100))
        peer.read_bytes_to_the_end()


def test_peers_that_vanished_without_a_word_are_given_up(process):
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(Http2Peer(process.address)) for _ in range(3)]
        for peer, path in zip(peers, (None, INFER, STREAM), strict=True):
            peer.hello()
            if path is not None:
                peer.call(path)
        for peer in peers:
            # It reads, but answers no ping: to the server that is the same as a cable that was cut.
            assert b"ping_timeout" in peer.read_bytes_to_the_end()


def test_a_flood_of_pings_ends_the_connection(peer):
    pings = b"".join([PingFrame(opaque_data=b"12345678").serialize()] * 100)
    # Some are a nuisance to grpcio already; our own transport takes thousands a second.
    with contextlib.suppress(ConnectionResetError, BrokenPipeError, TimeoutError):
        for _ in range(200):
            peer.socket.sendall(pings)
    assert b"too_many_pings" in peer.read_bytes_to_the_end()


def test_a_client_may_ask_an_idle_connection_as_often_as_the_server_does(process):
    with Http2Peer(process.address) as peer:
        peer.hello()
        asked = 0
        end = time.monotonic() + 20
        next_ping = time.monotonic()
        peer.socket.settimeout(0.05)
        while asked < 6:
            assert time.monotonic() < end
            if time.monotonic() >= next_ping:
                peer.h2.ping(b"%08d" % asked)
                asked += 1
                next_ping = time.monotonic() + 1.2 * SILENT_PEER_S / 2
            try:
                data = peer.socket.recv(65536)
            except TimeoutError:
                data = None
            assert data != b""
            events = peer.h2.receive_data(data) if data else []
            assert not any(isinstance(e, h2.events.ConnectionTerminated) for e in events)
            # Unlike the vanished, this one answers.
            peer.flush()


def all_taken(peer, kind, pieces):
    """Send so many pieces of a flood; whether the server did not end the connection before."""
    try:
        for piece in itertools.islice(FLOODS[kind](), pieces):
            peer.socket.sendall(piece)
    except (ConnectionResetError, BrokenPipeError):
        return False
    return True


def test_calls_that_are_reset_at_once_take_nothing(peer, caller):
    all_taken(peer, "rapid reset", 2000)
    assert caller.health() == "SERVING"


def test_headers_that_never_end_are_refused(peer):
    if all_taken(peer, "endless headers", 2000):
        assert RESOURCE_EXHAUSTED in peer.read_bytes_to_the_end()


def test_headers_that_grow_when_they_are_read_are_refused_each_time(peer):
    calls = 50
    said = b""
    if all_taken(peer, "growing headers", calls):
        while said.count(RESOURCE_EXHAUSTED) < calls:
            data = peer.socket.recv(65536)
            assert data, said.count(RESOURCE_EXHAUSTED)
            said += data


def test_a_flood_of_settings_or_empty_data_harms_nobody(peer):
    number = peer.call(INFER)
    frames = [SettingsFrame(), DataFrame(number)] * 2000
    try:
        peer.send(*frames)
    except (ConnectionResetError, BrokenPipeError):
        return


@pytest.mark.parametrize("kib", [40, 200, 1000])
def test_metadata_over_the_limit_are_resource_exhausted(caller, steady, kib):
    infer = caller.channel.unary_unary(INFER)
    with pytest.raises(grpc.RpcError) as caught:
        infer(b"", metadata=(("much", "m" * kib * 1024),), timeout=20)
    assert caught.value.code() is Code.RESOURCE_EXHAUSTED


def test_connections_over_the_limit_are_closed_and_the_others_serve(
    process, caller, steady, eventually
):
    peers = []
    try:

        def one_more_is_closed():
            peer = Http2Peer(process.address)
            peers.append(peer)
            return not peer.hello()

        eventually(one_more_is_closed, "a connection is refused")
        assert len(peers) <= MOST_CONNECTIONS
        assert caller.health() == "SERVING"
    finally:
        for peer in peers:
            peer.socket.close()
