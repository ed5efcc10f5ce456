"""Other people's tests: h2spec, and the interoperability programs of grpc-go."""

import socket
import subprocess

import pytest
from conformance_tools import path
from transport_interop import MESSAGES, METHODS, PACKAGE, handlers, payload
from transport_services import PATIENCE_S

from transport.calling.channel import Channel
from transport.calling.client_call import CallFailed
from transport.options import ServerConnectionOptions
from transport.serving.grpc_handlers import GrpcHandlers
from transport.serving.handler import unary
from transport.serving.server import Server, ServerOptions
from transport.status import Code
from transport.workers import Workers

SERVED_CASES = (
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "cancel_after_begin",
    "cancel_after_first_response",
    "timeout_on_sleeping_server",
    "status_code_and_message",
    "special_status_message",
    "custom_metadata",
    "unimplemented_method",
    "unimplemented_service",
)
OF_LARGE_FRAMES = (3, 4.1, 4.3, 5, 6, 7, 8)
SPECIAL_TEXT = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"
SIZES = ((31415, 27182), (9, 8), (2653, 1828), (58979, 45904))


def tool(name):
    program = path(name)
    if not program.exists():
        pytest.skip(f"{name} is not built; `make conformance` builds it, with Go")
    return str(program)


@pytest.fixture(scope="module")
def served():
    workers = Workers(16, 16, "interop")
    server = Server(["127.0.0.1:0"], GrpcHandlers((handlers(),), workers))
    yield server.addresses[0].rpartition(":")[2]
    server.stop()
    workers.close()


@pytest.fixture(scope="module")
def go_channel():
    program = tool("interop_server")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = subprocess.Popen([program, "-port", str(port)], stderr=subprocess.DEVNULL)
    with Channel(f"127.0.0.1:{port}") as channel:
        call(channel, "EmptyCall")(MESSAGES["Empty"](), timeout=PATIENCE_S, wait_for_ready=True)
        yield channel
    process.kill()
    process.wait()


def call(channel, name, service="TestService"):
    request, response = METHODS.get(name, ("Empty", "Empty"))
    kind = {True: "stream", False: "unary"}
    multi = getattr(channel, f"{kind[request[0] == '*']}_{kind[response[0] == '*']}")
    return multi(
        f"/{PACKAGE}.{service}/{name}",
        MESSAGES[request.lstrip("*")].SerializeToString,
        lambda data: MESSAGES[response.lstrip("*")].FromString(bytes(data)),
    )


def streamed(response_size, size, interval_us=0):
    parameters = MESSAGES["ResponseParameters"](size=response_size, interval_us=interval_us)
    return MESSAGES["StreamingOutputCallRequest"](
        response_parameters=[parameters], payload=payload(size)
    )


@pytest.mark.parametrize(
    ("max_frame", "sections", "cases"),
    [
        (16_384, (), 145),
        # But for 4.2: frames cannot be longer than 2^24-1, and its first case sends one over its
        # stream's window.
        (2**24 - 1, ("generic", "hpack", *(f"http2/{each}" for each in OF_LARGE_FRAMES)), 142),
    ],
)
def test_h2spec(max_frame, sections, cases):
    program = tool("h2spec")
    options = ServerOptions(connection=ServerConnectionOptions(max_frame=max_frame))
    echo = {"/test/Echo": unary(lambda each, message: each.answer([message]))}
    server = Server(["127.0.0.1:0"], echo, options)
    port = server.addresses[0].rpartition(":")[2]
    ran = subprocess.run(
        [program, *sections, "-h", "127.0.0.1", "-p", port, "-o", "10"],
        capture_output=True,
        text=True,
        check=False,
    )
    server.stop()
    assert f"{cases} tests, {cases} passed" in ran.stdout, ran.stdout


@pytest.mark.parametrize("case", SERVED_CASES)
def test_gos_client_is_served(served, case):
    program = tool("interop_client")
    words = [program, "-server_host", "127.0.0.1", "-server_port", served, "-test_case", case]
    ran = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr


def test_large_unary_at_gos_server(go_channel):
    request = MESSAGES["SimpleRequest"](response_size=314159, payload=payload(271828))
    answer = call(go_channel, "UnaryCall")(request, timeout=PATIENCE_S)
    assert len(answer.payload.body) == 314159


def test_streams_at_gos_server(go_channel):
    requests = [MESSAGES["StreamingInputCallRequest"](payload=payload(size)) for _, size in SIZES]
    answer = call(go_channel, "StreamingInputCall")(iter(requests), timeout=PATIENCE_S)
    assert answer.aggregated_payload_size == 74922
    request = MESSAGES["StreamingOutputCallRequest"](
        response_parameters=[MESSAGES["ResponseParameters"](size=size) for size, _ in SIZES]
    )
    answers = call(go_channel, "StreamingOutputCall")(request, timeout=PATIENCE_S)
    assert [len(each.payload.body) for each in answers] == [size for size, _ in SIZES]
    assert list(call(go_channel, "FullDuplexCall")(iter([]), timeout=PATIENCE_S)) == []


def test_ping_pong_at_gos_server(go_channel):
    pinged = call(go_channel, "FullDuplexCall")(None, timeout=PATIENCE_S)
    for response_size, size in SIZES:
        pinged.send([streamed(response_size, size).SerializeToString()])
        assert len(next(pinged).payload.body) == response_size
    pinged.half_close()
    assert pinged.code() is Code.OK


def test_cancellation_and_deadline_at_gos_server(go_channel):
    duplex = call(go_channel, "FullDuplexCall")
    cancelled = duplex(None, timeout=PATIENCE_S)
    cancelled.send([streamed(31415, 27182).SerializeToString()])
    assert len(next(cancelled).payload.body) == 31415
    cancelled.cancel()
    assert cancelled.code() is Code.CANCELLED
    late = duplex(iter([streamed(31415, 27182, interval_us=10**7)]), timeout=0.2)
    with pytest.raises(CallFailed, match="DEADLINE_EXCEEDED"):
        list(late)


@pytest.mark.parametrize("text", ["test status message", SPECIAL_TEXT])
def test_statuses_at_gos_server(go_channel, text):
    status = MESSAGES["EchoStatus"](code=2, message=text)
    with pytest.raises(CallFailed) as caught:
        call(go_channel, "UnaryCall")(
            MESSAGES["SimpleRequest"](response_status=status), timeout=PATIENCE_S
        )
    assert (caught.value.code(), caught.value.details()) == (Code.UNKNOWN, text)


def test_metadata_at_gos_server(go_channel):
    metadata = (
        ("x-grpc-test-echo-initial", "test_initial_metadata_value"),
        ("x-grpc-test-echo-trailing-bin", b"\xab\xab\xab"),
    )
    request = MESSAGES["SimpleRequest"](response_size=314159, payload=payload(271828))
    _, answered = call(go_channel, "UnaryCall").with_call(
        request, timeout=PATIENCE_S, metadata=metadata
    )
    assert metadata[0] in answered.initial_metadata()
    assert metadata[1] in answered.trailing_metadata()


def test_unknown_methods_at_gos_server(go_channel):
    for name, service in (("Unimplemented", "TestService"), ("EmptyCall", "Unimplemented")):
        with pytest.raises(CallFailed, match="UNIMPLEMENTED"):
            call(go_channel, name, service)(MESSAGES["Empty"](), timeout=PATIENCE_S)
