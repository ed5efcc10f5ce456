"""Every call that ends is handed to the server's observer: once, with what its client got."""

import contextlib
import logging
import threading

import grpc
import pytest
from hyperframe.frame import ContinuationFrame, HeadersFrame, RstStreamFrame
from transport_raw import Raw
from transport_services import FAILURES, UNLIMITED, Methods

from transport.options import ServerConnectionOptions
from transport.serving.grpc_handlers import GrpcHandlers
from transport.serving.handler import unary
from transport.serving.server import Server, ServerOptions
from transport.status import Code, StatusError
from transport.workers import Workers

STREAMS = 3
LIMIT_BYTES = 1000


class Observer:
    """Remembers the calls that it gets."""

    def __init__(self):
        self.ended = []

    def __call__(self, call):
        assert call.peer
        assert call.began_s > 0
        self.ended.append((call.path, call.status.code, call.refused))


def refuse(call):
    raise StatusError(Code.PERMISSION_DENIED, "no")


def fail(call):
    raise ArithmeticError("on purpose")


@pytest.fixture(scope="module")
def methods():
    return Methods()


@pytest.fixture
def observed(methods, eventually):
    """A server, a channel to it, and a function that gives the calls that ended since."""
    workers = Workers(8, 8, "test")
    handlers = GrpcHandlers((methods,), workers)
    own = {
        "/test/Own": unary(lambda call, message: call.answer([bytes(message)])),
        "/test/Hold": unary(lambda call, message: None),
        "/test/Refuse": refuse,
        "/test/Bug": fail,
    }
    observer = Observer()
    connection = ServerConnectionOptions(
        max_concurrent_streams=STREAMS, max_message_bytes=LIMIT_BYTES, receive_s=1.0
    )
    server = Server(
        ["127.0.0.1:0"],
        lambda path: own.get(path) or handlers(path),
        ServerOptions(connection=connection, on_call_ended=observer),
    )
    with grpc.insecure_channel(server.addresses[0], UNLIMITED) as channel:

        def ended(count):
            eventually(lambda: len(observer.ended) >= count, f"{count} calls have ended")
            return observer.ended

        yield server, channel, ended
    server.stop()
    workers.close()


def ask(channel, path, data=b"x", **options):
    with contextlib.suppress(*FAILURES):
        channel.unary_unary(path)(data, **options)


@pytest.mark.parametrize(
    ("path", "code", "refused"),
    [
        ("/test/Own", Code.OK, False),
        ("/test/Echo", Code.OK, False),
        ("/test/Packed", Code.OK, False),
        ("/test/Fail", Code.FAILED_PRECONDITION, False),
        ("/test/Raise", Code.UNKNOWN, False),
        ("/test/Refuse", Code.PERMISSION_DENIED, True),
        ("/test/Bug", Code.UNKNOWN, True),
        ("/test/None", Code.UNIMPLEMENTED, True),
    ],
)
def test_a_call_ends_with_the_code_that_its_client_gets(observed, path, code, refused):
    _, channel, ended = observed
    try:
        channel.unary_unary(path)(b"x")
        got = Code.OK
    except grpc.RpcError as error:
        got = Code(error.code().value[0])
    assert got == code
    assert ended(1) == [(path, code, refused)]


def test_a_stream_is_one_call(observed):
    _, channel, ended = observed
    assert list(channel.stream_stream("/test/EchoStream")(iter([b"a", b"b"]))) == [b"a", b"b"]
    assert list(channel.unary_stream("/test/Repeat")(b"3")) == [b"3"] * 3
    assert ended(2) == [("/test/EchoStream", Code.OK, False), ("/test/Repeat", Code.OK, False)]


def test_deadlines_and_messages_over_a_limit_end_calls_of_their_handlers(observed):
    _, channel, ended = observed
    ask(channel, "/test/Hold", timeout=0.1)
    ask(channel, "/test/Own", b"x" * (LIMIT_BYTES + 1))
    assert ended(2) == [
        ("/test/Hold", Code.DEADLINE_EXCEEDED, False),
        ("/test/Own", Code.RESOURCE_EXHAUSTED, False),
    ]


def test_a_client_that_resets_a_call_at_its_deadline_has_not_cancelled_it(observed):
    server, _, ended = observed
    with Raw(server.addresses[0]) as raw:
        for timeout, code in (("10m", Code.DEADLINE_EXCEEDED), ("20S", Code.CANCELLED)):
            headers = raw.headers("/test/Hold", [("grpc-timeout", timeout)])
            raw.send(headers, RstStreamFrame(headers.stream_id, 8))
            assert ended(1) == [("/test/Hold", code, False)]
            ended(1).clear()


def test_a_message_that_does_not_come_ends_its_call(observed):
    server, _, ended = observed
    with Raw(server.addresses[0]) as raw:
        raw.send(raw.headers("/test/Own"))
        assert ended(1) == [("/test/Own", Code.DEADLINE_EXCEEDED, False)]


def test_clients_that_leave_have_cancelled(observed, methods):
    server, channel, ended = observed
    methods.waiting.clear()
    waiting = channel.unary_unary("/test/Wait").future(b"x")
    assert methods.waiting.wait(30)
    waiting.cancel()
    assert ended(1) == [("/test/Wait", Code.CANCELLED, False)]
    with Raw(server.addresses[0]) as raw:
        raw.send(raw.headers("/test/Hold"), RstStreamFrame(1, 8))
        assert ended(2)[1:] == [("/test/Hold", Code.CANCELLED, False)]
        raw.send(raw.headers("/test/Hold"))
    # Its connection is closed.
    assert ended(3)[2:] == [("/test/Hold", Code.CANCELLED, False)]


def test_what_never_becomes_a_call_is_refused(observed):
    server, channel, ended = observed
    with Raw(server.addresses[0]) as raw:
        raw.send(*[raw.headers("/test/Hold") for _ in range(STREAMS + 1)])
        raw.reset()
        assert ended(1) == [("/test/Hold", Code.UNAVAILABLE, True)]
    assert len(ended(1 + STREAMS)) == 1 + STREAMS
    ask(channel, "/test/Own", metadata=[("big", "x" * 20_000)])
    assert ended(2 + STREAMS)[-1] == ("/test/Own", Code.RESOURCE_EXHAUSTED, True)
    with Raw(server.addresses[0]) as raw:
        raw.send(HeadersFrame(1, b"\0"), *[ContinuationFrame(1, b"x" * 16_000) for _ in range(6)])
        assert ended(3 + STREAMS)[-1] == ("", Code.RESOURCE_EXHAUSTED, True)


def test_a_request_that_is_not_grpc_is_refused(observed):
    server, _, ended = observed
    with Raw(server.addresses[0]) as raw:
        frame = raw.headers("/test/Own", end_stream=True)
        frame.data = raw.encoder.encode(
            [(":method", "GET"), (":scheme", "http"), (":path", "/x"), (":authority", "a")]
        )
        raw.send(frame)
        assert ended(1) == [("/x", Code.UNKNOWN, True)]


def test_a_server_that_stops_ends_its_calls(observed, methods):
    server, channel, ended = observed
    methods.waiting.clear()
    waiting = channel.unary_unary("/test/Wait").future(b"x")
    assert methods.waiting.wait(30)
    server.stop()
    assert waiting.exception(30).code() == grpc.StatusCode.UNAVAILABLE
    assert ended(1) == [("/test/Wait", Code.UNAVAILABLE, False)]


def test_threads_that_end_a_call_at_once_end_it_once(observed):
    server, channel, ended = observed
    answering = []

    def answer(call, message):
        barrier = threading.Barrier(3)

        def run(end):
            barrier.wait(30)
            end()

        ends = (lambda: call.answer([b"y"]), call.finish, lambda: call.failed(call.status))
        answering.extend(threading.Thread(target=run, args=(end,)) for end in ends)
        for thread in answering[-3:]:
            thread.start()

    server._method = {"/test/Race": unary(answer)}.get
    for _ in range(50):
        ask(channel, "/test/Race")
    for thread in answering:
        thread.join(30)
    assert ended(50) == [("/test/Race", Code.OK, False)] * 50


def test_an_observer_that_fails_harms_no_call(caplog):
    def observe(call):
        raise ArithmeticError("on purpose")

    own = {"/test/Own": unary(lambda call, message: call.answer([bytes(message)]))}
    server = Server(["127.0.0.1:0"], own, ServerOptions(on_call_ended=observe))
    try:
        with (
            caplog.at_level(logging.ERROR),
            grpc.insecure_channel(server.addresses[0], UNLIMITED) as channel,
        ):
            assert channel.unary_unary("/test/Own")(b"x") == b"x"
            ask(channel, "/test/None")
        assert "the observer of calls failed" in caplog.text
    finally:
        server.stop()
