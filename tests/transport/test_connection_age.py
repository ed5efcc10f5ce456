"""Connections that are too old: their clients are asked to connect anew, and lose nothing."""

import threading

import pytest
from hyperframe.frame import GoAwayFrame
from transport_raw import PATIENCE_S, Raw
from transport_services import FAILURES, open_channel

from transport.options import ServerConnectionOptions
from transport.serving import server_connection
from transport.serving.handler import CallHandler, unary
from transport.serving.server import Server, ServerOptions

CALLS = 4
NO_ERROR = 0


class Echo(CallHandler):
    """A stream whose messages are sent back."""

    open_ended = True

    def __init__(self, call):
        self.call = call

    def message(self, message):
        self.call.send([bytes(message)])

    def half_closed(self):
        self.call.finish()


@pytest.fixture
def serve():
    """Start servers with an age; the peers of the calls of Who, and the calls of Hold."""
    servers = []

    def start(**ages):
        held = []

        def hold(call, message):
            held.append(call)

        options = ServerOptions(connection=ServerConnectionOptions(**ages))
        methods = {
            "/test/Who": unary(lambda call, message: call.answer([call.peer.encode()])),
            "/test/Hold": unary(hold),
            "/test/Stream": Echo,
        }
        servers.append(Server(["127.0.0.1:0"], methods, options))
        return servers[-1].addresses[0], held

    yield start
    for server in servers:
        server.stop()


def who(channel):
    return bytes(channel.unary_unary("/test/Who")(b"", timeout=PATIENCE_S))


@pytest.mark.parametrize("kind", ["own", "grpcio"])
def test_a_client_comes_back_on_a_new_connection_and_no_call_fails(serve, eventually, kind):
    address, _ = serve(max_age_s=0.5)
    with open_channel(kind, address) as channel:
        peers = {who(channel)}

        def several():
            peers.add(who(channel))
            return len(peers) > 2

        eventually(several, "two more connections are made")


@pytest.mark.parametrize("kind", ["own", "grpcio"])
def test_calls_under_way_end_within_the_grace(serve, eventually, kind):
    address, held = serve(max_age_s=0.1, max_age_grace_s=PATIENCE_S)
    with open_channel(kind, address) as channel:
        first = who(channel)
        call = channel.unary_unary("/test/Hold").future(b"", timeout=PATIENCE_S)
        eventually(lambda: held, "the call is there")
        eventually(lambda: who(channel) != first, "others go over a new connection")
        held[0].answer([b"done"])
        assert call.result() == b"done"


@pytest.mark.parametrize("kind", ["own", "grpcio"])
def test_calls_beyond_the_grace_are_unavailable(serve, kind):
    address, _ = serve(max_age_s=0.1, max_age_grace_s=0.1)
    with open_channel(kind, address) as channel:
        call = channel.unary_unary("/test/Hold").future(b"", timeout=PATIENCE_S)
        assert call.exception(PATIENCE_S) is not None
        assert call.code().name == "UNAVAILABLE"
        assert call.details() == "the connection has reached its maximum age"


@pytest.mark.parametrize("kind", ["own", "grpcio"])
def test_a_stream_goes_on_where_the_grace_has_no_limit(serve, eventually, kind):
    address, _ = serve(max_age_s=0.1)
    with open_channel(kind, address) as channel:
        first = who(channel)
        go_on = threading.Event()

        def messages():
            yield b"before"
            assert go_on.wait(PATIENCE_S)
            yield b"after"

        answers = channel.stream_stream("/test/Stream")(messages(), timeout=PATIENCE_S)
        assert next(answers) == b"before"
        eventually(lambda: who(channel) != first, "the connection is too old")
        go_on.set()
        assert list(answers) == [b"after"]


def test_the_last_stream_is_named_and_the_connection_closed(serve):
    address, _ = serve(max_age_s=0.1)
    with Raw(address) as raw:
        raw.send(raw.headers("/test/Who"), raw.message(1, b""))
        said = []
        while (frame := raw.frame()) is not None:
            if isinstance(frame, GoAwayFrame):
                said.append((frame.last_stream_id, frame.error_code))
        # Calls that are under way when the client hears of it are still taken.
        assert said == [(2**31 - 1, NO_ERROR), (1, NO_ERROR)]


def test_connections_that_began_together_do_not_end_together(serve, monkeypatch):
    drawn = []

    def uniform(low, high):
        drawn.append((low, high))
        return high

    monkeypatch.setattr(server_connection.random, "uniform", uniform)
    address, _ = serve(max_age_s=3600)
    with open_channel("own", address) as channel:
        who(channel)
    assert drawn == [(0.9, 1.1)]


@pytest.mark.parametrize("kind", ["own", "grpcio"])
def test_under_load_nothing_fails(serve, kind):
    address, _ = serve(max_age_s=0.1, max_age_grace_s=PATIENCE_S)
    peers, failures = set(), []
    with open_channel(kind, address) as channel:

        def call():
            while len(peers) < CALLS and not failures:
                try:
                    peers.add(who(channel))
                except FAILURES as failure:
                    failures.append(failure)

        threads = [threading.Thread(target=call) for _ in range(CALLS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
    assert failures == []
    assert len(peers) >= CALLS
