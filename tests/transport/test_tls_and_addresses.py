"""TLS, client certificates, addresses, draining: own server and client, and grpcio's."""

import socket
import ssl
import threading
import time
from pathlib import Path

import grpc
import pytest
from certificates import Authority
from hyperframe.frame import DataFrame, SettingsFrame, WindowUpdateFrame
from transport_raw import Raw
from transport_services import PATIENCE_S, Peer, open_channel

from transport import tls
from transport.calling.channel import Channel, ChannelOptions
from transport.calling.client_call import CallFailed
from transport.options import ServerConnectionOptions
from transport.serving.handler import unary
from transport.serving.server import Server, ServerOptions


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls") / "authority")


@pytest.fixture(scope="module")
def files(authority):
    return {"server": authority.sign("server"), "client": authority.sign("client")}


class Certificates:
    """Gives the context of the moment."""

    def __init__(self, certificate, key, client_ca=None):
        self.files = (certificate, key, client_ca)

    def __call__(self):
        return tls.server_context(*(None if each is None else str(each) for each in self.files))


@pytest.fixture(scope="module")
def secure(authority, files):
    peer = Peer("own", tls_context=Certificates(*files["server"]))
    yield peer
    peer.close()


@pytest.fixture(scope="module")
def mutual(authority, files):
    peer = Peer("own", tls_context=Certificates(*files["server"], authority.certificate))
    yield peer
    peer.close()


def client_context(authority, certificate=None):
    context = ssl.create_default_context(cafile=str(authority.certificate))
    if certificate is not None:
        context.load_cert_chain(*map(str, certificate))
    return context


def grpcio_channel(authority, address, certificate=None):
    pair = [None, None] if certificate is None else [path.read_bytes() for path in certificate]
    credentials = grpc.ssl_channel_credentials(
        authority.certificate.read_bytes(), private_key=pair[1], certificate_chain=pair[0]
    )
    return grpc.secure_channel(address, credentials)


@pytest.mark.parametrize("size", [10, 3_000_000])
def test_messages_come_back_over_tls(authority, secure, size):
    message = bytes(range(250)) * (size // 250) or b"0123456789"
    with Channel(secure.address, tls_context=client_context(authority)) as channel:
        assert channel.unary_unary("/test/Echo")(message, timeout=PATIENCE_S) == message
    with grpcio_channel(authority, secure.address) as channel:
        echo = channel.stream_stream("/test/EchoStream")
        assert list(echo(iter([message] * 3), timeout=PATIENCE_S)) == [message] * 3


def test_our_client_calls_grpcios_server_over_tls(authority, files):
    certificate, key = (path.read_bytes() for path in files["server"])
    peer = Peer("grpcio", credentials=grpc.ssl_server_credentials([(key, certificate)]))
    with Channel(peer.address, tls_context=client_context(authority)) as channel:
        message = b"x" * 2_000_000
        assert channel.unary_unary("/test/Echo")(message, timeout=PATIENCE_S) == message
    peer.close()


def test_a_server_name_can_be_given_instead_of_the_address(authority, secure):
    for name, code in (("elsewhere.test", "OK"), ("other.test", "UNAVAILABLE")):
        options = ChannelOptions(server_name=name)
        with Channel(secure.address, options, client_context(authority)) as channel:
            call = channel.unary_unary("/test/Echo").future(b"", timeout=PATIENCE_S)
            assert call.code().name == code


def test_clients_without_a_certificate_are_refused_where_one_is_needed(authority, files, mutual):
    with Channel(mutual.address, tls_context=client_context(authority)) as channel:
        call = channel.unary_unary("/test/Echo").future(b"x", timeout=PATIENCE_S)
        assert call.code().name == "UNAVAILABLE"
    with Channel(mutual.address, tls_context=client_context(authority, files["client"])) as channel:
        assert channel.unary_unary("/test/Echo")(b"x", timeout=PATIENCE_S) == b"x"
    with grpcio_channel(authority, mutual.address, files["client"]) as channel:
        assert channel.unary_unary("/test/Echo")(b"x", timeout=PATIENCE_S) == b"x"
        who = channel.unary_unary("/test/Who")(b"", timeout=PATIENCE_S)
        assert b"client" in who


def test_a_plain_client_is_refused_by_a_tls_server(secure):
    with Channel(secure.address) as channel:
        call = channel.unary_unary("/test/Echo").future(b"x", timeout=PATIENCE_S)
        assert call.code().name == "UNAVAILABLE"


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"])
def test_a_handshake_that_stalls_is_given_up_and_others_are_served(authority, files, said):
    connection = ServerConnectionOptions(preface_s=1.0)
    context = Certificates(*files["server"])
    peer = Peer("own", options=ServerOptions(connection=connection), tls_context=context)
    host, _, port = peer.address.rpartition(":")
    try:
        with (
            socket.create_connection((host, int(port)), PATIENCE_S) as stalled,
            Channel(peer.address, tls_context=client_context(authority)) as channel,
        ):
            stalled.sendall(said)
            assert channel.unary_unary("/test/Echo")(b"x", timeout=PATIENCE_S) == b"x"
            assert stalled.recv(1) == b""
            assert channel.unary_unary("/test/Echo")(b"x", timeout=PATIENCE_S) == b"x"
    finally:
        peer.close()


def test_a_client_without_alpn_is_refused(authority, secure):
    context = client_context(authority)
    host, _, port = secure.address.rpartition(":")
    with (
        socket.create_connection((host, int(port)), PATIENCE_S) as plain,
        context.wrap_socket(plain, server_hostname=host) as wrapped,
    ):
        assert wrapped.recv(1) == b""


def test_new_certificates_need_no_restart(authority, files):
    certificates = Certificates(*authority.sign("expired", days=-1))
    peer = Peer("own", tls_context=certificates)
    with Channel(peer.address, tls_context=client_context(authority)) as channel:
        call = channel.unary_unary("/test/Echo").future(b"x", timeout=PATIENCE_S)
        assert call.code().name == "UNAVAILABLE"
        assert "expired" in call.details()
        certificates.files = (*files["server"], None)
        echo = channel.unary_unary("/test/Echo")
        assert echo(b"x", timeout=PATIENCE_S, wait_for_ready=True) == b"x"
    peer.close()


@pytest.mark.parametrize("kind", ["own", "grpcio"])
def test_unix_sockets(kind, tmp_path):
    address = f"unix:{tmp_path}/socket"
    peer = Peer("own", address)
    with open_channel(kind, address) as channel:
        assert channel.unary_unary("/test/Echo")(b"x" * 10**6, timeout=PATIENCE_S) == b"x" * 10**6
    with pytest.raises(OSError, match="in use"):
        Server([address], {})
    peer.close()
    assert not Path(f"{tmp_path}/socket").exists()


@pytest.mark.parametrize("kind", ["own", "grpcio"])
def test_ipv6_and_several_addresses(kind):
    if not socket.has_ipv6:
        pytest.skip("no IPv6")
    echo = {"/test/Echo": unary(lambda call, message: call.answer([message, call.peer.encode()]))}
    server = Server(["[::1]:0", "127.0.0.1:0"], echo)
    for address, family in zip(server.addresses, (b"ipv6:%5B::1%5D:", b"ipv4:"), strict=True):
        with open_channel(kind, address) as channel:
            answer = bytes(channel.unary_unary("/test/Echo")(b"x", timeout=PATIENCE_S))
            assert answer.startswith(b"x" + family)
    server.stop()


def test_a_port_in_use_is_an_error():
    server = Server(["127.0.0.1:0"], {})
    with pytest.raises(OSError, match="in use"):
        Server(server.addresses, {})
    server.stop()


@pytest.mark.parametrize("kind", ["own", "grpcio"])
def test_draining_lets_calls_end_and_takes_no_new_ones(kind):
    calls = []
    came = threading.Event()

    def hold(call, message):
        if message == b"late":
            call.answer([message])
            return
        calls.append(call)
        came.set()

    server = Server(["127.0.0.1:0"], {"/test/Hold": unary(hold)})
    with open_channel(kind, server.addresses[0]) as channel:
        held = channel.unary_unary("/test/Hold").future(b"x", timeout=PATIENCE_S)
        assert came.wait(PATIENCE_S)
        stopping = threading.Thread(target=server.stop, args=(PATIENCE_S,))
        stopping.start()
        end = time.monotonic() + PATIENCE_S
        codes = set()
        while "UNAVAILABLE" not in codes and time.monotonic() < end:
            late = channel.unary_unary("/test/Hold").future(b"late", timeout=PATIENCE_S)
            codes.add(late.code().name)
        # Those that were under way when the client heard of it were still answered.
        assert codes <= {"OK", "UNAVAILABLE"}
        assert "UNAVAILABLE" in codes
        assert not held.done()
        calls[0].answer([b"done"])
        assert held.result() == b"done"
        stopping.join(PATIENCE_S)
        assert not stopping.is_alive()


def test_draining_waits_for_a_client_that_reads_late():
    size = 16 * 2**20
    server = Server(
        ["127.0.0.1:0"], {"/test/Large": unary(lambda call, message: call.answer([bytes(size)]))}
    )
    window = {SettingsFrame.INITIAL_WINDOW_SIZE: 2**31 - 1, SettingsFrame.MAX_FRAME_SIZE: 2**24 - 1}
    with Raw(server.addresses[0], settings=window) as raw:
        raw.send(WindowUpdateFrame(0, window_increment=2**31 - 1 - 65_535))
        raw.send(raw.headers("/test/Large"), raw.message(1, b""))
        while not server.calls:
            threading.Event().wait(0.01)
        stopping = threading.Thread(target=server.stop, args=(PATIENCE_S,))
        stopping.start()
        # Longer than a connection waits for its peer's end once all is sent.
        stopping.join(1.5)
        assert stopping.is_alive()
        got = 0
        while (frame := raw.frame()) is not None:
            got += len(frame.data) if isinstance(frame, DataFrame) else 0
        assert got == 5 + size
        raw.sock.close()
        stopping.join(PATIENCE_S)
        assert not stopping.is_alive()


@pytest.mark.parametrize("kind", ["own", "grpcio"])
def test_after_the_grace_period_calls_are_cancelled(kind):
    server = Server(["127.0.0.1:0"], {"/test/Hold": unary(lambda call, message: None)})
    with open_channel(kind, server.addresses[0]) as channel:
        call = channel.unary_unary("/test/Hold").future(b"x", timeout=PATIENCE_S)
        while not server.calls:
            threading.Event().wait(0.01)
        server.stop(0.1)
        assert call.code().name == "UNAVAILABLE"


def test_a_channel_finds_a_server_that_comes_late():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    with Channel(address) as channel:
        echo = channel.unary_unary("/test/Echo")
        with pytest.raises(CallFailed, match="UNAVAILABLE: failed to connect to 127"):
            echo(b"x", timeout=PATIENCE_S)
        waiting = echo.future(b"x", timeout=PATIENCE_S, wait_for_ready=True)
        peer = Peer("own", address)
        assert waiting.result() == b"x"
        peer.close()


def test_calls_go_to_the_server_that_is_left():
    peers = [Peer("own"), Peer("own")]
    with Channel([peer.address for peer in peers]) as channel:
        echo = channel.unary_unary("/test/Echo")
        echo(b"x", timeout=PATIENCE_S, wait_for_ready=True)
        peers[0].close()
        for _ in range(20):
            assert echo(b"x", timeout=PATIENCE_S, wait_for_ready=True) == b"x"
        peers[1].close()
