"""Peers that break the rules or waste the server's time: each is ended, and others are served."""

import contextlib
import random
import socket
import threading
import time
import tracemalloc
import zlib
from typing import ClassVar

import grpc
import pytest
from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from transport_raw import PATIENCE_S, Raw
from transport_services import UNLIMITED

from transport.http2 import limits
from transport.http2.frames import PREFACE, ErrorCode
from transport.http2.headers import HeaderReader
from transport.messages import SkipMessage
from transport.options import ServerConnectionOptions
from transport.serving.handler import CallHandler, unary
from transport.serving.server import Server, ServerOptions
from transport.status import Code, StatusError

LIMIT_BYTES = 1_000_000
WINDOW = 65_536
MORE_THAN_ENOUGH = 20_000


class Budget(CallHandler):
    """Takes messages only when `room` is set, and remembers what it was asked for."""

    asked: ClassVar = []
    taken: ClassVar = []
    calls: ClassVar = []
    changed = threading.Condition()
    room = False
    open_ended = True

    def __init__(self, call):
        self.call = call
        with self.changed:
            self.calls.append(call)

    def admit(self, length):
        with self.changed:
            self.asked.append(length)
            self.changed.notify_all()
        return Budget.room

    def message(self, message):
        with self.changed:
            self.taken.append(len(message))
            self.changed.notify_all()
        self.call.send([b"ok"])

    def half_closed(self):
        self.call.finish()


class Few(CallHandler):
    """Has room for three messages, and remembers the call whose fourth message has to wait."""

    open_ended = True
    full = threading.Event()
    taken: ClassVar = []
    calls: ClassVar = []
    size = 100_000

    def __init__(self, call):
        self.calls.append(call)
        self.left = 3 * self.size

    def admit(self, length):
        if length > self.left:
            self.full.set()
            return False
        self.left -= length
        return True

    def room_bytes(self):
        return self.left

    def message(self, message):
        self.taken.append(len(message))


class Skip(CallHandler):
    """Skips messages over 1,000 bytes, and says of each message what it was."""

    open_ended = True

    def __init__(self, call):
        self.call = call

    def admit(self, length):
        if length > 1000:
            raise SkipMessage
        return True

    def message(self, message):
        self.call.send([b"got %d" % len(message)])

    def skipped(self, length, head):
        self.call.send([b"skipped %d %s" % (length, head[:5])])

    def half_closed(self):
        self.call.finish()


class Refuse(CallHandler):
    """Takes no message."""

    def admit(self, length):
        raise StatusError(Code.RESOURCE_EXHAUSTED, f"refused {length}")


class Amplify(CallHandler):
    """Answers each message with a MiB."""

    open_ended = True
    answers = 0

    def __init__(self, call):
        self.call = call

    def message(self, message):
        Amplify.answers += 1
        self.call.send([bytes(2**20)])


@pytest.fixture(scope="module")
def server():
    options = ServerOptions(
        connection=ServerConnectionOptions(
            stream_window=WINDOW,
            max_message_bytes=LIMIT_BYTES,
            max_concurrent_streams=50,
            max_unread_bytes=8 * 2**20,
            preface_s=1.0,
            receive_s=2.0,
            send_stall_s=2.0,
        ),
        max_connections=100,
    )
    methods = {
        "/test/Echo": unary(lambda call, message: call.answer([message])),
        "/test/Hang": lambda call: CallHandler(),
        "/test/Budget": Budget,
        "/test/Few": Few,
        "/test/Refuse": lambda call: Refuse(),
        "/test/Amplify": Amplify,
        "/test/Skip": Skip,
    }
    server = Server(["127.0.0.1:0"], methods, options)
    yield server
    server.stop()


@pytest.fixture
def raw(server):
    with Raw(server.addresses[0]) as client:
        yield client
    with grpc.insecure_channel(server.addresses[0], UNLIMITED) as channel:
        assert channel.unary_unary("/test/Echo")(b"still here", timeout=PATIENCE_S) == b"still here"


def flood(raw, frame):
    """Send a frame until the server ends the connection; why it did."""
    piece = frame.serialize() * 100

    def send():
        try:
            for _ in range(MORE_THAN_ENOUGH // 100):
                raw.sock.sendall(piece)
        except OSError:
            return

    sender = threading.Thread(target=send)
    sender.start()
    code = raw.goaway()
    sender.join()
    return code


def test_rapid_reset_ends_the_connection(raw):
    def begin_and_reset():
        try:
            for _ in range(MORE_THAN_ENOUGH):
                begun = raw.headers("/test/Hang")
                raw.send(begun, RstStreamFrame(begun.stream_id, error_code=8))
        except OSError:
            return

    sender = threading.Thread(target=begin_and_reset)
    sender.start()
    assert raw.goaway() is ErrorCode.ENHANCE_YOUR_CALM
    sender.join()


def test_resets_that_the_client_provokes_count_as_well(raw):
    def provoke():
        try:
            for _ in range(2 * limits.MAX_RESETS_PER_S):
                begun = raw.headers("/test/Hang")
                raw.send(begun, WindowUpdateFrame(begun.stream_id, window_increment=2**31 - 1))
        except OSError:
            return

    sender = threading.Thread(target=provoke)
    sender.start()
    assert raw.goaway() is ErrorCode.ENHANCE_YOUR_CALM
    sender.join()


def test_a_flood_of_continuations_ends_the_connection(raw):
    begun = raw.headers()
    begun.flags.discard("END_HEADERS")
    raw.send(begun)
    assert flood(raw, ContinuationFrame(1, b"")) is ErrorCode.ENHANCE_YOUR_CALM


def test_a_header_block_over_the_limit_ends_the_connection(raw):
    begun = raw.headers()
    begun.flags.discard("END_HEADERS")
    raw.send(begun)
    piece = b"\x00\x01a\x7f\x80\x7d" + b"x" * 16_000
    assert flood(raw, ContinuationFrame(1, piece)) is ErrorCode.ENHANCE_YOUR_CALM


RESOURCE_EXHAUSTED = str(int(Code.RESOURCE_EXHAUSTED))


def test_an_hpack_bomb_ends_its_call_and_the_table_stays_in_step(raw):
    begun = raw.headers(more=[("bomb", "x" * 4000)])
    # The last field of the table, again and again, then one that is new.
    begun.data += b"\xbe" * 16_000 + raw.encoder.encode([("late", "enough")])
    raw.send(begun)
    assert raw.trailers()["grpc-status"] == RESOURCE_EXHAUSTED
    raw.send(raw.headers(more=[("late", "enough")]), raw.message(3, b"next"))
    assert raw.until(DataFrame).data == b"\0\0\0\0\4next"


def test_a_bomb_costs_little_time():
    reader = HeaderReader(lambda fields: fields, 16 * 1024)
    encoder = Encoder()
    reader.read(encoder.encode([("bomb", "x" * 4000)]))
    bombs = 200
    begun_s = time.process_time()
    for _ in range(bombs):
        assert len(reader.read(b"\xbe" * 60_000)) == 5
    # Decoded one by one, a field takes a microsecond and more: 12 s together.
    assert time.process_time() - begun_s < 4


def test_more_fields_than_are_worth_decoding_end_the_call_and_the_connection(raw):
    begun = raw.headers()
    begun.data += b"\x00\x01a\x01b" * 2_000
    raw.send(begun)
    assert raw.trailers()["grpc-status"] == RESOURCE_EXHAUSTED
    assert raw.goaway() is ErrorCode.ENHANCE_YOUR_CALM


def test_a_client_may_stop_to_send_headers_without_an_end_before_the_connection_ends(raw):
    begun = raw.headers()
    begun.data += b"x" * 200 * 1024
    raw.send(begun)
    assert raw.trailers()["grpc-status"] == RESOURCE_EXHAUSTED
    reset = raw.frame()
    assert isinstance(reset, RstStreamFrame)
    assert (reset.stream_id, reset.error_code) == (begun.stream_id, ErrorCode.NO_ERROR)
    assert raw.goaway() is ErrorCode.ENHANCE_YOUR_CALM


@pytest.mark.parametrize("kib", [16, 1024], ids=["continued", "in one frame"])
def test_headers_without_an_end_end_their_call_before_the_connection(raw, kib):
    begun = raw.headers()
    begun.flags.discard("END_HEADERS")
    raw.send(begun)
    piece = ContinuationFrame(1, b"x" * kib * 1024).serialize()

    def send():
        with contextlib.suppress(OSError):
            for _ in range(8):
                raw.sock.sendall(piece)

    sender = threading.Thread(target=send)
    sender.start()
    assert raw.trailers()["grpc-status"] == RESOURCE_EXHAUSTED
    assert raw.goaway() is ErrorCode.ENHANCE_YOUR_CALM
    sender.join()


def test_pings_are_no_flood_while_answers_are_sent(raw):
    calls = limits.MAX_PINGS_PER_S * 2
    for number in range(calls):
        begun = raw.headers()
        raw.send(begun, raw.message(begun.stream_id, b""), PingFrame(0, b"%08d" % number))
        answered = False
        while not answered:
            frame = raw.frame()
            assert frame is not None
            answered = isinstance(frame, HeadersFrame) and "END_STREAM" in frame.flags


def test_windows_opened_by_small_answers_are_no_flood(server, monkeypatch):
    """gRPC's clients open both windows by the size of each answer."""
    monkeypatch.setattr(limits, "MAX_IDLE_FRAMES_PER_S", 20)
    with Raw(server.addresses[0]) as raw:
        for _ in range(200):
            begun = raw.headers()
            raw.send(begun, raw.message(begun.stream_id, b"small"))
            answered = False
            while not answered:
                frame = raw.frame()
                assert frame is not None
                answered = isinstance(frame, HeadersFrame) and "END_STREAM" in frame.flags
            raw.send(
                WindowUpdateFrame(begun.stream_id, window_increment=10),
                WindowUpdateFrame(0, window_increment=10),
            )
        assert flood(raw, WindowUpdateFrame(0, window_increment=1)) is ErrorCode.ENHANCE_YOUR_CALM


def test_metadata_over_the_limit_is_refused(raw):
    raw.send(raw.headers(more=[(f"x-{number}", "y" * 1000) for number in range(17)]))
    assert raw.trailers()["grpc-status"] == str(int(Code.RESOURCE_EXHAUSTED))


@pytest.mark.parametrize(
    "frame",
    [
        PingFrame(0, b"12345678"),
        SettingsFrame(0),
        PriorityFrame(1, depends_on=3, stream_weight=1),
        DataFrame(1, b""),
        WindowUpdateFrame(0, window_increment=1),
    ],
    ids=lambda frame: type(frame).__name__,
)
def test_a_flood_of_frames_without_content_ends_the_connection(raw, frame):
    raw.send(raw.headers("/test/Hang"))
    assert flood(raw, frame) is ErrorCode.ENHANCE_YOUR_CALM


def test_a_connection_window_that_overflows_ends_the_connection(raw):
    raw.send(WindowUpdateFrame(0, window_increment=2**31 - 1))
    assert raw.goaway() is ErrorCode.FLOW_CONTROL_ERROR


def test_a_stream_window_that_overflows_ends_the_stream(raw):
    raw.send(raw.headers("/test/Hang"), WindowUpdateFrame(1, window_increment=2**31 - 1))
    assert raw.reset() is ErrorCode.FLOW_CONTROL_ERROR


def test_data_beyond_the_window_end_the_stream(raw):
    raw.send(raw.headers("/test/Budget"))
    raw.send(raw.message(1, b"x" * WINDOW, length=2 * WINDOW, end_stream=False))
    assert raw.reset() is ErrorCode.FLOW_CONTROL_ERROR


def test_data_on_a_stream_that_has_ended_are_refused(raw):
    raw.send(raw.headers("/test/Hang"), raw.message(1, b""), raw.message(1, b""))
    assert raw.reset() is ErrorCode.STREAM_CLOSED


def test_too_many_streams_are_refused(raw):
    raw.send(*(raw.headers("/test/Hang") for _ in range(51)))
    frame = raw.until(RstStreamFrame)
    assert (frame.stream_id, frame.error_code) == (101, ErrorCode.REFUSED_STREAM)


def test_padding_and_priority_are_taken_off(raw):
    begun = raw.headers()
    begun.flags |= {"PADDED", "PRIORITY"}
    begun.pad_length, begun.depends_on, begun.stream_weight = 7, 3, 1
    data = raw.message(1, b"padded")
    data.flags.add("PADDED")
    data.pad_length = 200
    raw.send(begun, data)
    assert raw.until(DataFrame).data == b"\0\0\0\0\6padded"


def test_unknown_frames_are_ignored(raw):
    raw.sock.sendall(b"\x00\x00\x05\xbb\x00\x00\x00\x00\x00hello")
    raw.send(raw.headers(), raw.message(1, b"x"))
    assert raw.until(DataFrame).data == b"\0\0\0\0\1x"


def test_trailers_end_a_request(raw):
    raw.send(raw.headers(), raw.message(1, b"x", end_stream=False))
    trailers = HeadersFrame(1, raw.encoder.encode([("x-late", "1")]), flags=["END_HEADERS"])
    trailers.flags.add("END_STREAM")
    raw.send(trailers)
    assert raw.until(DataFrame).data == b"\0\0\0\0\1x"


def test_a_message_over_the_limit_is_refused_from_its_prefix(raw):
    raw.send(raw.headers(), raw.message(1, b"", length=LIMIT_BYTES + 1, end_stream=False))
    trailers = raw.trailers()
    assert trailers["grpc-status"] == str(int(Code.RESOURCE_EXHAUSTED))
    assert str(LIMIT_BYTES + 1) in trailers["grpc-message"]


def test_a_handler_refuses_a_message_from_its_prefix(raw):
    raw.send(raw.headers("/test/Refuse"), raw.message(1, b"", length=77, end_stream=False))
    assert raw.trailers()["grpc-message"] == "refused 77"


@pytest.mark.parametrize("compression", [None, grpc.Compression.Gzip])
def test_a_message_that_is_skipped_leaves_its_place_to_the_next(server, compression):
    sizes = [10, 900_000, 0, 1001, 500]
    with grpc.insecure_channel(server.addresses[0], UNLIMITED) as channel:
        call = channel.stream_stream("/test/Skip")
        messages = (random.Random(size).randbytes(size) for size in sizes)
        answers = list(call(messages, compression=compression, timeout=PATIENCE_S))
    # What is skipped while it is compressed has the length that it came with.
    said = [answer.split()[0] for answer in answers]
    assert said == [b"got", b"skipped", b"got", b"skipped", b"got"]
    if compression is None:
        assert answers[1] == b"skipped 900000 " + random.Random(900_000).randbytes(900_000)[:5]
        assert [int(answer.split()[1]) for answer in answers] == sizes


def test_a_message_that_is_too_large_once_unpacked_is_skipped(server):
    with grpc.insecure_channel(server.addresses[0], UNLIMITED) as channel:
        call = channel.stream_stream("/test/Skip")
        messages = iter([b"z" * 100_000, b"next"])
        answers = list(call(messages, compression=grpc.Compression.Gzip, timeout=PATIENCE_S))
    assert answers == [b"skipped 100000 zzzzz", b"got 4"]


def test_a_message_that_is_skipped_takes_no_memory(server):
    with Raw(server.addresses[0]) as raw:
        raw.send(raw.headers("/test/Skip"))
        raw.send(raw.message(1, b"", length=LIMIT_BYTES, end_stream=False))
        tracemalloc.start()
        try:
            sent = 0
            while sent < LIMIT_BYTES:
                raw.send(DataFrame(1, bytes(10_000)))
                sent += 10_000
                if not sent % 50_000:
                    raw.until(WindowUpdateFrame)
            assert raw.until(DataFrame).data.endswith(b"skipped 1000000 \0\0\0\0\0")
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak_bytes < LIMIT_BYTES // 2


def test_the_time_that_a_message_waits_for_room_is_not_the_senders(server):
    Budget.asked.clear()
    Budget.taken.clear()
    Budget.calls.clear()
    Budget.room = False
    with Raw(server.addresses[0]) as raw:
        raw.send(raw.headers("/test/Budget"))
        raw.send(raw.message(1, b"half", length=8, end_stream=False))
        with Budget.changed:
            assert Budget.changed.wait_for(lambda: Budget.asked == [8], PATIENCE_S)
        # Longer than a message may take.
        threading.Event().wait(3.5)
        Budget.calls[0].resume()
        # The transport looks at times once a second.
        threading.Event().wait(1.2)
        raw.send(DataFrame(1, b"half"))
        assert raw.until(DataFrame).data == b"\0\0\0\0\2ok"


def test_a_packed_message_is_unpacked_up_to_the_limit_only(raw):
    packer = zlib.compressobj(wbits=31)
    packed = b"".join(packer.compress(bytes(2**20)) for _ in range(64)) + packer.flush()
    assert len(packed) < WINDOW + 10_000
    raw.send(raw.headers(more=[("grpc-encoding", "gzip")]))
    body = b"\1" + len(packed).to_bytes(4, "big") + packed
    for at in range(0, len(body), 16_000):
        flags = ["END_STREAM"] if at + 16_000 >= len(body) else []
        raw.send(DataFrame(1, body[at : at + 16_000], flags=flags))
    trailers = raw.trailers()
    assert trailers["grpc-status"] == str(int(Code.RESOURCE_EXHAUSTED))
    assert str(LIMIT_BYTES) in trailers["grpc-message"]


def test_a_message_without_room_comes_no_further_than_the_window(server):
    Budget.asked.clear()
    Budget.taken.clear()
    Budget.calls.clear()
    Budget.room = False
    message = b"x" * 900_000
    with grpc.insecure_channel(server.addresses[0], UNLIMITED) as channel:
        call = channel.stream_stream("/test/Budget")(iter([message]), timeout=PATIENCE_S)
        with Budget.changed:
            assert Budget.changed.wait_for(lambda: Budget.asked == [900_000], PATIENCE_S)
        stream = Budget.calls[0]
        assert Budget.taken == []
        assert stream.recv_window <= WINDOW
        stream.resume()
        assert next(call) == b"ok"
        assert Budget.taken == [900_000]
        assert list(call) == []


def test_messages_for_which_a_handler_has_no_room_are_not_asked_for(server):
    messages = iter([bytes(Few.size)] * 40)
    with grpc.insecure_channel(server.addresses[0], UNLIMITED) as channel:
        call = channel.stream_stream("/test/Few")(messages, timeout=PATIENCE_S)
        assert Few.full.wait(PATIENCE_S)
        (stream,) = Few.calls
        assert Few.taken == [Few.size] * 3
        # With room for all of them the client may send 16 messages ahead.
        assert stream.recv_window <= WINDOW
        call.cancel()


def test_answers_that_nobody_reads_hold_bounded_memory(server):
    Amplify.answers = 0
    with Raw(server.addresses[0]) as raw:
        begun = raw.headers("/test/Amplify")
        raw.send(begun)
        piece = raw.message(begun.stream_id, b"", end_stream=False).serialize() * 1000
        raw.sock.sendall(piece)
        # The client has given 64 KiB of window and gives no more.
        assert raw.reset() is ErrorCode.CANCEL
    assert 8 <= Amplify.answers <= 10


def test_a_wider_window_is_acknowledged_before_it_is_used(server):
    """Peers count what they receive by the window that was acknowledged."""
    size = 200_000
    with Raw(server.addresses[0], settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0}) as raw:
        raw.send(raw.headers("/test/Amplify"), raw.message(1, b"", end_stream=False))
        raw.until(HeadersFrame)
        raw.send(
            WindowUpdateFrame(0, window_increment=size),
            SettingsFrame(0, {SettingsFrame.INITIAL_WINDOW_SIZE: 2 * size}),
        )
        order = []
        while DataFrame not in order:
            order.append(type(raw.frame()))
    assert SettingsFrame in order


def test_a_client_that_opens_its_window_byte_by_byte_is_ended(server):
    pace = threading.Event()
    with Raw(server.addresses[0], settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0}) as raw:
        begun = raw.headers("/test/Amplify")
        raw.send(begun, raw.message(1, b"", end_stream=False))
        got = 0
        while isinstance(frame := raw.frame(), DataFrame | HeadersFrame | SettingsFrame) or got < 1:
            got += isinstance(frame, DataFrame)
            # Paced: as fast as it can it would be a flood.
            pace.wait(0.02)
            raw.send(WindowUpdateFrame(1, window_increment=1))
        assert isinstance(frame, RstStreamFrame)


def test_a_slow_message_ends_its_call(raw):
    raw.send(raw.headers(), raw.message(1, b"x", length=10, end_stream=False))
    trailers = raw.trailers()
    assert trailers["grpc-status"] == str(int(Code.DEADLINE_EXCEEDED))
    assert "2 s" in trailers["grpc-message"]


def test_a_message_whose_prefix_comes_slowly_has_its_time_too(raw):
    began_s = time.monotonic()
    raw.send(raw.headers(), DataFrame(1, b"\0\0"))
    assert raw.trailers()["grpc-status"] == str(int(Code.DEADLINE_EXCEEDED))
    assert time.monotonic() - began_s >= 2


def test_a_connection_without_a_preface_is_closed(server):
    with Raw(server.addresses[0], preface=b"") as raw:
        raw.sock.sendall(PREFACE[:10])
        assert raw.sock.recv(1) == b""


@pytest.mark.parametrize("said", [b"\x16\x03\x01\x02\x00", PREFACE[:10] + b"?"])
def test_what_is_neither_http_nor_grpc_is_told_so_in_http_2(server, said):
    with Raw(server.addresses[0], preface=b"") as raw:
        raw.sock.sendall(said)
        assert raw.goaway() is ErrorCode.PROTOCOL_ERROR
        assert raw.frame() is None


@pytest.mark.parametrize(
    "request_", [b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\n\r\n", b"POST /x HTTP/1.0\r\n\r\n"]
)
def test_http_1_gets_an_answer_that_says_what_is_spoken(server, request_):
    with Raw(server.addresses[0], preface=b"") as raw:
        raw.sock.sendall(request_)
        answer = b"".join(iter(lambda: raw.sock.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 505 ")
    assert b"gRPC" in answer


def test_a_half_closed_socket_is_let_go_of(server):
    with Raw(server.addresses[0]) as raw:
        raw.send(raw.headers("/test/Hang"))
        raw.until(SettingsFrame)
        raw.sock.shutdown(socket.SHUT_WR)
        while raw.frame() is not None:
            pass


def test_connections_over_the_limit_are_refused_and_then_taken_again(server):
    opened = [Raw(server.addresses[0]) for _ in range(100)]
    for each in opened:
        each.until(SettingsFrame)
    with Raw(server.addresses[0], preface=b"") as refused:
        assert refused.sock.recv(1) == b""
    for each in opened:
        each.sock.close()
    with grpc.insecure_channel(server.addresses[0], UNLIMITED) as channel:
        call = channel.unary_unary("/test/Echo")
        assert call(b"x", timeout=PATIENCE_S, wait_for_ready=True) == b"x"
