"""A server that is not reached is named at once with the reason; a closed client says so."""

import re
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from certificates import Authority

from client import Client, Credentials, RetryPolicy, Unavailable, Unreachable, UsageError
from measure.__main__ import main
from model.export import export
from model.weights import from_seed

FEATURES = 8
X = np.eye(FEATURES, dtype=np.float32)
ONCE = RetryPolicy(attempts=1)
# Retries that a test need not wait for.
AGAIN_AT_ONCE = RetryPolicy(initial_backoff_s=0.001)
# Far below what waiting would take, far above what a busy machine adds.
AT_ONCE_S = 15


@pytest.fixture(scope="module")
def models(graphs):
    export(graphs.folder, "linear_argmax", from_seed(4, FEATURES, 0), "float32", 0)
    return graphs.folder


@pytest.fixture(scope="module", params=["grpcio", "native"])
def transport(request):
    """What the server is made of."""
    return request.param


@pytest.fixture(scope="module")
def server(serve, models, transport):
    return serve(models, transport=transport)


@pytest.fixture(scope="module")
def plain(serve, models):
    """A server without TLS, as it is started by default."""
    return serve(models)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls") / "ours")


@pytest.fixture(scope="module")
def tls(serve, models, authority, transport):
    """Make servers that speak TLS, with a certificate of some kind, asking for one or not."""

    def start(name="server", *, days=2, client_ca=None):
        certificate, key = authority.sign(name, days=days)
        files = {"tls_cert": certificate, "tls_key": key, "tls_client_ca": client_ca}
        return serve(models, transport=transport, **files).address

    return start


def closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def web_server():
    """Something that answers every connection as a web server does."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer():
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1000)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        yield "{}:{}".format(*listening.getsockname())
        listening.shutdown(socket.SHUT_RDWR)


def asks(client):
    yield lambda: client.predict(X)
    yield lambda: list(client.stream([X]))
    yield lambda: client.infer({"x": X})
    yield client.metadata
    yield client.check_reachable


def says_at_once(address, text, retry=AGAIN_AT_ONCE, **options):
    """Hold each way to ask to the reason."""
    with Client(address, retry=retry, **options) as client:
        for ask in asks(client):
            started = time.monotonic()
            with pytest.raises(Unreachable, match=re.escape(text)) as caught:
                ask()
            assert time.monotonic() - started < AT_ONCE_S
            assert caught.value.code == "UNAVAILABLE"
            assert address in caught.value.text
            assert "\n" not in str(caught.value)


def test_nobody_listens():
    says_at_once(closed_port(), "connection refused, no server listens there", retry=None)


def test_there_is_no_such_socket(tmp_path):
    says_at_once(f"unix:{tmp_path}/none.sock", "the socket does not exist")


def test_there_is_no_such_host():
    says_at_once("nobody.invalid:8001", "the host name cannot be resolved")


def test_what_listens_is_no_grpc_server(web_server):
    says_at_once(web_server, "not a gRPC server")


def test_tls_is_not_spoken_there(plain, authority):
    known = Credentials.of_files(ca=authority.certificate)
    says_at_once(plain.address, "the server does not speak TLS", credentials=known)


def test_only_tls_is_spoken_there(tls):
    says_at_once(tls("strict"), "it may expect TLS")


def test_another_ca_signed_the_server(tls, tmp_path):
    other = Credentials.of_files(ca=Authority(tmp_path / "other").certificate)
    says_at_once(tls("strange"), "not signed by a certificate of the given CA", credentials=other)


def test_the_certificate_has_expired(tls, authority):
    known = Credentials.of_files(ca=authority.certificate)
    says_at_once(tls("expired", days=-1), "certificate has expired", credentials=known)


def test_the_certificate_is_for_another_name(tls, authority):
    known = Credentials(ca=authority.certificate.read_bytes(), server_name="nobody.test")
    says_at_once(tls("named"), "is for another name", credentials=known)


def test_another_ca_signed_the_client(tls, authority, tmp_path):
    certificate, key = Authority(tmp_path / "other").sign("client")
    unknown = Credentials.of_files(ca=authority.certificate, certificate=certificate, key=key)
    address = tls("mutual", client_ca=authority.certificate)
    says_at_once(address, "it may not trust the client certificate", credentials=unknown)


def test_credentials_of_each_kind_are_taken(tls, authority):
    certificate, key = authority.sign("client")
    known = Credentials.of_files(ca=authority.certificate, certificate=certificate, key=key)
    address = tls("both", client_ca=authority.certificate)
    # A certificate can be trusted itself, without the authority that signed it.
    own = authority.certificate.with_name("both.pem").read_bytes()
    pinned = Credentials(ca=own, certificate=known.certificate, key=known.key)
    for credentials in (known, pinned):
        with Client(address, credentials=credentials) as client:
            assert client.predict(X).shape == (FEATURES,)


def test_several_servers_share_the_name_of_the_first(tls, authority):
    known = Credentials(ca=authority.certificate.read_bytes(), server_name="elsewhere.test")
    addresses = [tls("server"), tls("server")]
    with Client(addresses, credentials=known) as client:
        client.predict(X)
    wrong = Credentials(ca=known.ca, server_name="nobody.test")
    with (
        Client(addresses, credentials=wrong, retry=ONCE) as client,
        pytest.raises(Unreachable, match="is for another name"),
    ):
        client.predict(X)


@pytest.mark.parametrize(
    "pem", [{"ca": b"none"}, {"ca": "ü".encode()}, {"certificate": b"none", "key": b"none"}]
)
def test_what_is_not_pem_is_a_usage_error(pem, authority):
    known = Credentials(**{"ca": authority.certificate.read_bytes()} | pem)
    with pytest.raises(UsageError, match="PEM"):
        Client("127.0.0.1:1", credentials=known)


def test_a_client_certificate_is_expected(tls, authority):
    known = Credentials.of_files(ca=authority.certificate)
    address = tls("mutual", client_ca=authority.certificate)
    says_at_once(address, "it may expect a client certificate", credentials=known)


def test_every_one_of_several_is_named():
    addresses = f"{closed_port()},{closed_port()}"
    says_at_once(addresses, "connection refused")


def test_silence_ends_with_the_deadline():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = "{}:{}".format(*silent.getsockname())
        with Client(address, deadline_s=0.5) as client:
            with pytest.raises(Unreachable, match=f"{address}: no answer"):
                client.check_reachable()
            with pytest.raises(Unreachable, match=r"within 0\.5 s: .*no answer"):
                client.wait_until_ready(0.5)


def test_waiting_ends_at_once_where_it_does_not_help(plain, authority):
    known = Credentials.of_files(ca=authority.certificate)
    started = time.monotonic()
    with (
        Client(plain.address, credentials=known) as client,
        pytest.raises(Unreachable, match="does not speak TLS") as caught,
    ):
        client.wait_until_ready(10 * AT_ONCE_S)
    assert not caught.value.waiting_helps
    assert time.monotonic() - started < AT_ONCE_S


def test_waiting_names_the_reason_at_its_timeout():
    def said(client, timeout_s):
        with pytest.raises(Unreachable, match=f"within {timeout_s:g} s: ") as caught:
            client.wait_until_ready(timeout_s)
        return str(caught.value)

    with Client(closed_port()) as client:
        # On a busy machine a connection is not refused as soon as that.
        assert any("connection refused" in said(client, timeout_s) for timeout_s in (0.2, 15))


def test_a_server_that_starts_is_waited_for(launch, models):
    address = closed_port()
    with Client(address) as client:
        ready = threading.Thread(target=client.wait_until_ready, args=(60,))
        ready.start()
        launch(models, address=address)
        ready.join(60)
        assert not ready.is_alive()
        assert client.live()


def test_a_server_that_answers_is_reached_whatever_it_says(server):
    for options in ({}, {"model": "nobody"}):
        with Client(server.address, **options) as client:
            client.check_reachable()


@pytest.mark.parametrize(
    "words",
    [
        ["predict", "--input", "{folder}/x.npy"],
        ["sweep", "--modes", "unary", "--out", "{folder}"],
        ["load", "--rate", "5", "--out", "{folder}"],
        ["slo", "--p99-ms", "5", "--out", "{folder}"],
    ],
    ids=lambda words: words[0],
)
def test_commands_say_at_once_that_nobody_is_there(words, tmp_path, capsys):
    np.save(tmp_path / "x.npy", X)
    address = closed_port()
    started = time.monotonic()
    told = [word.format(folder=tmp_path) for word in words]
    assert main([*told, "--address", address]) == 1
    assert time.monotonic() - started < AT_ONCE_S
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert f"cannot connect to {address}: connection refused" in line


@pytest.mark.parametrize("command", ["predict", "sweep", "load", "slo", "loadgen", "plan"])
def test_commands_refuse_an_address_that_is_none(command, capsys):
    assert main([command, "--address", "127.0.0.1:99999"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "port 99999; expected 1 to 65535" in line


def test_a_closed_client_says_so(server):
    client = Client(server.address)
    client.predict(X)
    client.close()
    client.close()
    others = (client.live, client.ready, client.statistics, client.config, client.wait_until_ready)
    for ask in (*asks(client), *others):
        with pytest.raises(UsageError, match="the client is closed"):
            ask()


def test_a_stream_of_a_closed_client_is_refused_before_it_begins(server):
    with Client(server.address) as client:
        pass
    for begin in (client.stream, client.stream_answers):
        with pytest.raises(UsageError, match="the client is closed"):
            begin([X])


def test_what_a_server_says_is_no_fault_of_the_way_to_it(server):
    with (
        Client(server.address, "nobody", retry=ONCE) as client,
        pytest.raises(Exception, match="NOT_FOUND") as caught,
    ):
        client.predict(X)
    assert not isinstance(caught.value, Unavailable)


def test_a_folder_is_no_socket(tmp_path):
    with pytest.raises(UsageError, match="names a folder"):
        Client(f"unix:{Path(tmp_path)}")
