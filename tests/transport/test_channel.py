"""Our client against servers that behave oddly, and bounds on what it keeps."""

import threading

import pytest
from hyperframe.frame import (
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
)
from transport_raw import RawServer, answer
from transport_services import PATIENCE_S, Peer

from transport.calling.channel import Channel, ChannelOptions
from transport.http2.frames import ErrorCode
from transport.options import ConnectionOptions, ServerConnectionOptions
from transport.serving.server import ServerOptions
from transport.status import Code


@pytest.fixture
def server():
    server = RawServer()
    yield server
    server.close()


@pytest.fixture
def channel(server):
    with Channel(server.address) as channel:
        yield channel


def begin(channel, server, settings=None):
    """A call that has reached the server, and the server's connection."""
    call = channel.unary_unary("/test/Any").future(b"hello", timeout=PATIENCE_S)
    raw = server.accept(settings)
    return call, raw, raw.until(DataFrame).stream_id


def test_a_call_that_goaway_leaves_out_is_made_again_elsewhere(channel, server):
    call, raw, _ = begin(channel, server)
    raw.send(GoAwayFrame(0, last_stream_id=0, error_code=0))
    second = server.accept()
    data = second.until(DataFrame)
    assert data.data == b"\0\0\0\0\5hello"
    answer(second, data.stream_id, b"done")
    assert call.result() == b"done"


def test_a_call_that_goaway_names_is_still_answered(channel, server):
    call, raw, stream_id = begin(channel, server)
    raw.send(GoAwayFrame(0, last_stream_id=stream_id, error_code=0))
    answer(raw, stream_id, b"done")
    assert call.result() == b"done"
    while raw.frame() is not None:
        pass


def test_a_refused_call_is_made_again(channel, server):
    call, raw, stream_id = begin(channel, server)
    raw.send(RstStreamFrame(stream_id, error_code=ErrorCode.REFUSED_STREAM))
    data = raw.until(DataFrame)
    assert data.stream_id > stream_id
    answer(raw, data.stream_id, b"done")
    assert call.result() == b"done"


@pytest.mark.parametrize(
    ("reset", "code"),
    [
        (ErrorCode.INTERNAL_ERROR, Code.INTERNAL),
        (ErrorCode.ENHANCE_YOUR_CALM, Code.RESOURCE_EXHAUSTED),
        (ErrorCode.CANCEL, Code.CANCELLED),
        (999, Code.INTERNAL),
    ],
)
def test_a_reset_ends_a_call_with_its_status(channel, server, reset, code):
    call, raw, stream_id = begin(channel, server)
    raw.send(RstStreamFrame(stream_id, error_code=reset))
    assert call.code() is code


def test_a_lost_connection_ends_its_calls(channel, server):
    call, raw, _ = begin(channel, server)
    raw.sock.close()
    assert call.code() is Code.UNAVAILABLE


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ([(":status", "503")], Code.UNAVAILABLE),
        ([(":status", "404"), ("content-type", "text/html")], Code.UNIMPLEMENTED),
        ([(":status", "200"), ("content-type", "text/html")], Code.UNKNOWN),
        ([(":status", "200"), ("content-type", "application/grpc")], Code.UNKNOWN),
        ([(":status", "200"), ("content-type", "application/grpc"), ("Upper", "x")], Code.INTERNAL),
    ],
)
def test_an_answer_that_is_not_grpcs_has_a_status(channel, server, fields, code):
    call, raw, stream_id = begin(channel, server)
    block = raw.encoder.encode(fields)
    raw.send(HeadersFrame(stream_id, block, flags=["END_HEADERS", "END_STREAM"]))
    assert call.code() is code


def test_an_answer_without_trailers_is_an_error(channel, server):
    call, raw, stream_id = begin(channel, server)
    block = raw.encoder.encode([(":status", "200"), ("content-type", "application/grpc")])
    raw.send(HeadersFrame(stream_id, block, flags=["END_HEADERS"]), raw.message(stream_id, b"x"))
    assert call.code() is Code.INTERNAL


def test_interim_answers_are_passed_over(channel, server):
    call, raw, stream_id = begin(channel, server)
    block = raw.encoder.encode([(":status", "103"), ("link", "x")])
    raw.send(HeadersFrame(stream_id, block, flags=["END_HEADERS"]))
    answer(raw, stream_id, b"done")
    assert call.result() == b"done"


def test_calls_wait_for_the_servers_limit_of_streams(channel, server):
    limit = {SettingsFrame.MAX_CONCURRENT_STREAMS: 1}
    first, raw, stream_id = begin(channel, server, limit)
    second = channel.unary_unary("/test/Any").future(b"second", timeout=PATIENCE_S)
    answer(raw, stream_id, b"one")
    assert first.result() == b"one"
    data = raw.until(DataFrame)
    assert data.data.endswith(b"second")
    answer(raw, data.stream_id, b"two")
    assert second.result() == b"two"


def test_a_server_that_sends_no_settings_is_given_up(server):
    options = ChannelOptions(ConnectionOptions(preface_s=0.2))
    with Channel(server.address, options) as channel:
        call = channel.unary_unary("/test/Any").future(b"x", timeout=PATIENCE_S)
        assert call.code() is Code.UNAVAILABLE
        assert "settings" in call.details()


def test_a_silent_server_is_found_out_by_pings(server):
    options = ChannelOptions(ConnectionOptions(keepalive_s=0.1, keepalive_timeout_s=0.1))
    with Channel(server.address, options) as channel:
        call, raw, _ = begin(channel, server)
        raw.until(PingFrame)
        assert call.code() is Code.UNAVAILABLE
        assert "keepalive" in call.details()


def test_answers_that_nobody_takes_are_not_received():
    peer = Peer("own")
    options = ChannelOptions(receive_ahead_bytes=2 * 2**20)
    with Channel(peer.address, options) as channel:
        go_on = threading.Event()
        call = channel.stream_stream("/test/EchoStream")(
            (bytes(2**20) for _ in range(100)), timeout=PATIENCE_S
        )
        next(call)
        for _ in range(99):
            go_on.wait(0.001)
            assert call._answer_bytes <= 4 * 2**20
            assert len(next(call)) == 2**20
        assert list(call) == []
    peer.close()


def test_an_idle_connection_is_closed_and_made_again():
    options = ServerOptions(connection=ServerConnectionOptions(idle_s=0.5))
    peer = Peer("own", options=options)
    with Channel(peer.address) as channel:
        echo = channel.unary_unary("/test/Echo")
        assert echo(b"x", timeout=PATIENCE_S) == b"x"
        gone = threading.Event()
        while peer.server._connections:
            gone.wait(0.02)
        assert echo(b"y", timeout=PATIENCE_S) == b"y"
    peer.close()


def test_request_messages_are_buffers_one_after_the_other():
    peer = Peer("own")
    with Channel(peer.address) as channel:
        echo = channel.unary_unary("/test/Echo", lambda pair: [pair[0], memoryview(pair[1])], bytes)
        assert echo((b"head", b"body" * 1000), timeout=PATIENCE_S) == b"head" + b"body" * 1000
    peer.close()


def test_an_iterator_of_requests_that_fails_ends_its_call():
    peer = Peer("own")

    def requests():
        yield b"one"
        raise ArithmeticError("on purpose")

    with Channel(peer.address) as channel:
        call = channel.stream_unary("/test/Sum").future(requests(), timeout=PATIENCE_S)
        assert call.code() is Code.UNKNOWN
        assert "on purpose" in call.details()
    peer.close()
