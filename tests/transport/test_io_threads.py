"""Connections that several I/O threads share."""

import threading

import pytest
from transport_services import PATIENCE_S, Peer, open_channel

from transport.serving.server import ServerOptions

THREADS, CONNECTIONS = 3, 9


@pytest.fixture(scope="module")
def peer():
    peer = Peer("own", options=ServerOptions(io_threads=THREADS))
    yield peer
    peer.close()


def test_connections_are_spread_and_all_are_served(peer):
    channels = [open_channel("own", peer.address) for _ in range(CONNECTIONS)]
    failures = []

    def call(channel):
        try:
            for size in (0, 10, 100_000, 2_000_000):
                message = bytes(size)
                echo = channel.unary_unary("/test/Echo")
                assert echo(message, timeout=PATIENCE_S) == message
                stream = channel.stream_stream("/test/EchoStream")
                assert list(stream(iter([message] * 3), timeout=PATIENCE_S)) == [message] * 3
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=call, args=(channel,)) for channel in channels]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    loops = [connection.loop for connection in peer.server._connections]
    assert [loops.count(loop) for loop in set(loops)] == [CONNECTIONS // THREADS] * THREADS
    for channel in channels:
        channel.close()


def test_a_server_with_several_threads_stops():
    peer = Peer("own", options=ServerOptions(io_threads=THREADS))
    channels = [open_channel("own", peer.address) for _ in range(CONNECTIONS)]
    for channel in channels:
        assert channel.unary_unary("/test/Echo")(b"x", timeout=PATIENCE_S) == b"x"
    stopped = threading.Thread(target=peer.close)
    stopped.start()
    stopped.join(PATIENCE_S)
    assert not stopped.is_alive()
    for channel in channels:
        channel.close()
