import logging
import os
import socket
import ssl
import subprocess
import warnings

import grpc
import numpy as np
import pytest
from certificates import Authority
from grpc_health.v1 import health_pb2, health_pb2_grpc

from client import Client, Credentials, RetryPolicy, Unavailable, UsageError
from measure.__main__ import main
from model.export import export
from model.weights import from_seed
from protos import inference_pb2 as pb
from protos.stub import InferenceStub

FEATURES = 8
X = np.arange(2 * FEATURES, dtype=np.float32).reshape(2, FEATURES)
ONCE = RetryPolicy(attempts=1)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls") / "ours")


@pytest.fixture(scope="module")
def other_authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls") / "others")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    weights = from_seed(4, FEATURES, 1)
    export(folder, "linear_argmax", weights, "float32", 1, version=1)
    return folder


@pytest.fixture(scope="module")
def secure(serve, models):
    """Start servers of a certificate and its key."""

    def start(certificate, key, client_ca=None):
        return serve(models, tls_cert=certificate, tls_key=key, tls_client_ca=client_ca)

    return start


@pytest.fixture(scope="module")
def tls(secure, authority):
    return secure(*authority.sign("server"))


@pytest.fixture(scope="module")
def mutual(secure, authority):
    return secure(*authority.sign("mutual"), authority.certificate)


@pytest.fixture
def pair(authority, tmp_path):
    """Files that a server is given, to be replaced as the test likes."""
    return _replaced(tmp_path / "in-use", *authority.sign("in-use"))


@pytest.fixture
def rotating(secure, pair):
    """A server of files that the test replaces."""
    return secure(*pair)


def _replaced(folder, certificate, key):
    """Put a pair in place as an operator would, each file by renaming it."""
    folder.mkdir(exist_ok=True)
    placed = []
    for source, name in ((certificate, "tls.crt"), (key, "tls.key")):
        (folder / f".{name}").write_bytes(source.read_bytes())
        os.replace(folder / f".{name}", folder / name)
        placed.append(folder / name)
    return placed


def labels(server, **credentials):
    """Predict over a connection of its own; the labels."""
    known = Credentials.of_files(**credentials)
    with Client(server.address, retry=ONCE, credentials=known, deadline_s=10) as client:
        return client.predict(X).tolist()


def refused(server, **credentials):
    """Whether no connection comes about."""
    with pytest.raises(Unavailable) as caught:
        labels(server, **credentials)
    return "handshake" in caught.value.text or "connect" in caught.value.text


def shown_certificate(server):
    """The certificate, as PEM, that a new connection is shown."""
    host, port = server.address.rsplit(":", 1)
    return ssl.get_server_certificate((host, int(port)), timeout=10)


def test_labels_are_those_of_a_server_without_tls(tls, authority, serve, models):
    assert labels(tls, ca=authority.certificate) == labels(serve(models))


def test_a_server_that_is_a_process_of_its_own_speaks_tls(launch, models, authority):
    certificate, key = authority.sign("process")
    options = ("--tls-cert", certificate, "--tls-key", key)
    server = launch(models, *options, "--tls-client-ca", authority.certificate)
    ours = dict(zip(("certificate", "key"), authority.sign("caller"), strict=True))
    assert len(labels(server, ca=authority.certificate, **ours)) == len(X)
    assert refused(server, ca=authority.certificate)


def test_streams_go_over_tls(tls, authority):
    known = Credentials.of_files(ca=authority.certificate)
    with Client(tls.address, credentials=known) as client:
        parts = [part.tolist() for part in client.stream([X, X[:1]])]
    assert [len(part) for part in parts] == [2, 1]


@pytest.mark.parametrize("hedge_after_s", [None, 5], ids=["in turn", "hedged"])
def test_several_servers_are_shown_the_token_over_tls(
    hedge_after_s, serve, models, authority, other_authority, tmp_path
):
    token = "t" * 32
    tokens = tmp_path / "tokens"
    tokens.write_text(f"{token} infer\n")
    certificate, key = authority.sign("several")
    options = {"tls_cert": certificate, "tls_key": key, "token_file": tokens}
    addresses = [serve(models, **options).address for _ in range(2)]

    def counted(ca):
        known = Credentials(ca=ca.certificate.read_bytes(), token=token)
        more = {"retry": ONCE, "credentials": known, "deadline_s": 10}
        with Client(addresses, hedge_after_s=hedge_after_s, **more) as client:
            client.predict(X)
        counts = []
        for address in addresses:
            with Client(address, **more) as client:
                counts.append(client.statistics().inference_count)
        return sum(counts)

    assert counted(authority) == len(X)
    with pytest.raises(Unavailable):
        counted(other_authority)


def test_a_client_of_another_authority_refuses_the_server(tls, other_authority):
    assert refused(tls, ca=other_authority.certificate)


def test_plain_text_is_not_answered(tls):
    with pytest.raises(Unavailable):
        labels(tls)


def test_an_expired_certificate_of_the_server_is_refused(secure, authority):
    server = secure(*authority.sign("expired", days=-1))
    assert refused(server, ca=authority.certificate)


def test_a_server_by_another_name_is_refused_unless_told(tls, authority):
    ca = authority.certificate.read_bytes()
    with (
        Client(
            tls.address, retry=ONCE, credentials=Credentials(ca=ca, server_name="nobody.test")
        ) as client,
        pytest.raises(Unavailable),
    ):
        client.predict(X)
    with Client(
        tls.address, credentials=Credentials(ca=ca, server_name="elsewhere.test")
    ) as client:
        assert len(client.predict(X)) == len(X)


def test_health_is_told_over_tls(tls, authority):
    ca = grpc.ssl_channel_credentials(authority.certificate.read_bytes())
    with grpc.secure_channel(tls.address, ca) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(), timeout=10
        )
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


# Client certificates.


def test_a_client_with_a_certificate_is_answered(mutual, authority):
    certificate, key = authority.sign("client")
    answer = labels(mutual, ca=authority.certificate, certificate=certificate, key=key)
    assert len(answer) == len(X)


def test_a_client_without_a_certificate_is_refused(mutual, authority):
    assert refused(mutual, ca=authority.certificate)


def test_a_client_with_a_certificate_of_another_authority_is_refused(
    mutual, authority, other_authority
):
    certificate, key = other_authority.sign("client")
    assert refused(mutual, ca=authority.certificate, certificate=certificate, key=key)


def test_an_expired_client_certificate_is_refused(mutual, authority):
    certificate, key = authority.sign("late", days=-1)
    assert refused(mutual, ca=authority.certificate, certificate=certificate, key=key)


def test_a_certificate_for_servers_alone_lets_no_client_in(mutual, authority):
    certificate, key = authority.sign("no-client", usage="serverAuth")
    assert refused(mutual, ca=authority.certificate, certificate=certificate, key=key)
    certificate, key = authority.sign("for-clients", usage="clientAuth")
    assert len(labels(mutual, ca=authority.certificate, certificate=certificate, key=key)) == len(X)


def test_a_certificate_for_clients_alone_is_refused_of_a_server(secure, authority):
    server = secure(*authority.sign("no-server", usage="clientAuth"))
    assert refused(server, ca=authority.certificate)


def handshake(server, authority, **settings):
    """The version of TLS that a client with these settings comes to."""
    context = ssl.create_default_context(cafile=authority.certificate)
    # OpenSSL itself would not offer what is old.
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        for name, value in settings.items():
            setattr(context, name, value)
    host, port = server.address.rsplit(":", 1)
    with (
        socket.create_connection((host, int(port)), timeout=10) as connection,
        context.wrap_socket(connection, server_hostname=host) as hands,
    ):
        return hands.version()


def test_nothing_older_than_tls_1_2_is_spoken(tls, authority):
    old, new = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_2
    assert handshake(tls, authority) == "TLSv1.3"
    assert handshake(tls, authority, minimum_version=new, maximum_version=new) == "TLSv1.2"
    for version in (old, ssl.TLSVersion.TLSv1_1):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            handshake(tls, authority, minimum_version=old, maximum_version=version)


def calls(server, authority):
    """How many requests the model has had, answered or not."""
    certificate, key = authority.sign("counting")
    files = (authority.certificate, key, certificate)
    known = grpc.ssl_channel_credentials(*(each.read_bytes() for each in files))
    with grpc.secure_channel(server.address, known) as channel:
        answer = InferenceStub(channel).ModelStatistics(
            pb.ModelStatisticsRequest(name="linear_argmax"), timeout=10
        )
    counted = answer.model_stats[0].inference_stats
    return counted.success.count + counted.fail.count


def test_no_handler_is_called_over_a_connection_that_is_refused(mutual, authority, other_authority):
    ca = authority.certificate
    before = calls(mutual, authority)
    for name, signer, how in (
        ("other", other_authority, {}),
        ("late", authority, {"days": -1}),
        ("unfit", authority, {"usage": "serverAuth"}),
    ):
        certificate, key = signer.sign(name, **how)
        assert refused(mutual, ca=ca, certificate=certificate, key=key)
    assert refused(mutual, ca=ca)
    with pytest.raises(Unavailable):
        labels(mutual)
    assert calls(mutual, authority) == before
    certificate, key = authority.sign("accepted")
    assert len(labels(mutual, ca=ca, certificate=certificate, key=key)) == len(X)
    assert calls(mutual, authority) == before + 1


# The command line.


def flags(authority):
    certificate, key = authority.sign("shell")
    options = {"--tls-ca": authority.certificate, "--tls-cert": certificate, "--tls-key": key}
    return [str(word) for option in options.items() for word in option]


def test_the_command_line_predicts_over_tls(mutual, authority, tmp_path, capsys):
    rows = tmp_path / "x.npy"
    np.save(rows, X)
    command = ["predict", "--address", mutual.address, "--input", str(rows)]
    assert main([*command, *flags(authority)]) == 0
    assert len(capsys.readouterr().out.split()) == len(X)


def test_the_command_line_sweeps_over_tls(mutual, authority, tmp_path):
    size = ("--classes", "4", "--features", str(FEATURES), "--seed", "1", "--examples", "2")
    command = ["sweep", "--address", mutual.address, "--modes", "unary,stream,shm", *size]
    command += ["--batch-sizes", "1,2", "--repeats", "1", "--out", str(tmp_path / "out")]
    assert main([*command, *flags(authority)]) == 0


# Rotation.


def test_new_connections_are_shown_a_new_certificate_and_open_ones_go_on(
    rotating, pair, authority, other_authority
):
    before = shown_certificate(rotating)
    known = Credentials.of_files(ca=authority.certificate)
    with Client(rotating.address, retry=ONCE, credentials=known) as client:
        want = client.predict(X).tolist()
        _replaced(pair[0].parent, *other_authority.sign("rotated"))
        after = shown_certificate(rotating)
        assert after != before
        assert after.strip() in pair[0].read_text()
        assert client.predict(X).tolist() == want
    assert labels(rotating, ca=other_authority.certificate) == want
    assert refused(rotating, ca=authority.certificate)


def spoilt_key(pair, other):
    pair[1].write_bytes(other.sign("stranger")[1].read_bytes())


def spoilt_certificate(pair, other):
    pair[0].write_text("no certificate")


def missing_key(pair, other):
    pair[1].unlink()


def half_certificate(pair, other):
    pair[0].write_bytes(pair[0].read_bytes()[:-40])


def half_chain(pair, other):
    whole = pair[0].read_bytes()
    pair[0].write_bytes(whole + whole[: len(whole) // 2])


def half_key(pair, other):
    pair[1].write_bytes(pair[1].read_bytes()[:-40])


def empty_key(pair, other):
    pair[1].write_bytes(b"")


def pipe_for_key(pair, other):
    pair[1].unlink()
    os.mkfifo(pair[1])


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (spoilt_key, "is not the PEM key of --tls-cert"),
        (spoilt_certificate, "holds no PEM certificate"),
        (missing_key, "No such file"),
        (half_certificate, "holds no PEM certificate"),
        (half_chain, "holds no PEM certificate"),
        (half_key, "is not the PEM key of --tls-cert"),
        (empty_key, "is not the PEM key of --tls-cert"),
        (pipe_for_key, "is not a regular file"),
    ],
)
def test_a_bad_pair_is_logged_and_the_old_one_stays(
    rotating, pair, authority, other_authority, spoil, reason, caplog
):
    before = shown_certificate(rotating)
    spoil(pair, other_authority)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert shown_certificate(rotating) == before
    (record,) = caplog.records
    assert "keeping the old content" in record.getMessage()
    assert reason in str(vars(record))
    _replaced(pair[0].parent, *authority.sign("mended"))
    assert shown_certificate(rotating).strip() in pair[0].read_text()
    assert len(labels(rotating, ca=authority.certificate)) == len(X)


def test_the_authority_of_clients_can_be_replaced(
    secure, pair, authority, other_authority, tmp_path
):
    client_ca = tmp_path / "clients.pem"
    client_ca.write_bytes(authority.certificate.read_bytes())
    server = secure(*pair, client_ca)
    ours = dict(zip(("certificate", "key"), authority.sign("one"), strict=True))
    theirs = dict(zip(("certificate", "key"), other_authority.sign("two"), strict=True))
    assert len(labels(server, ca=authority.certificate, **ours)) == len(X)
    assert refused(server, ca=authority.certificate, **theirs)
    client_ca.write_bytes(other_authority.certificate.read_bytes())
    assert len(labels(server, ca=authority.certificate, **theirs)) == len(X)
    assert refused(server, ca=authority.certificate, **ours)


def test_a_session_is_not_resumed_beyond_its_authority(
    secure, pair, authority, other_authority, tmp_path
):
    client_ca = tmp_path / "clients.pem"
    client_ca.write_bytes(authority.certificate.read_bytes())
    server = secure(*pair, client_ca)
    context = ssl.create_default_context(cafile=authority.certificate)
    # Of this version the handshake itself tells whether the certificate was taken.
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(*authority.sign("resuming"))
    host, port = server.address.rsplit(":", 1)

    def session(known=None):
        with (
            socket.create_connection((host, int(port)), timeout=10) as connection,
            context.wrap_socket(connection, server_hostname=host, session=known) as hands,
        ):
            return hands.session, hands.session_reused

    known, _ = session()
    assert session(known)[1]
    client_ca.write_bytes(other_authority.certificate.read_bytes())
    with pytest.raises((ssl.SSLError, ConnectionError)):
        session(known)


# A stalled handshake harms nobody.


def test_connections_that_shake_no_hands_keep_nobody_out(tls, authority):
    host, port = tls.address.rsplit(":", 1)
    stalled = [socket.create_connection((host, int(port))) for _ in range(20)]
    try:
        assert len(labels(tls, ca=authority.certificate)) == len(X)
    finally:
        for connection in stalled:
            connection.close()


# What keeps the server from starting.


@pytest.fixture
def start_error(refusal, models):
    """Return the function from options to the one line with which the server ends."""
    return lambda *options: refusal("--models", models, *options)


def test_a_file_that_is_missing_is_named(start_error, pair, tmp_path):
    absent = tmp_path / "absent.pem"
    error = start_error("--tls-cert", absent, "--tls-key", pair[1])
    assert error == f"--tls-cert {absent}: No such file or directory"


def test_a_file_that_holds_no_certificate_is_named(start_error, pair, tmp_path):
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    options = ("--tls-cert", pair[0], "--tls-key", pair[1], "--tls-client-ca", junk)
    assert start_error(*options) == f"--tls-client-ca {junk} holds no PEM certificate"


def test_a_key_of_another_certificate_is_named(start_error, pair, authority):
    other = authority.sign("other")[1]
    error = start_error("--tls-cert", pair[0], "--tls-key", other)
    assert error.startswith(f"--tls-key {other} is not the PEM key of --tls-cert {pair[0]}")


def test_a_key_with_a_passphrase_is_refused(start_error, pair, tmp_path):
    locked = tmp_path / "locked.key"
    subprocess.run(
        ["openssl", "ec", "-in", pair[1], "-out", locked, "-aes128", "-passout", "pass:secret"],
        check=True,
        capture_output=True,
    )
    error = start_error("--tls-cert", pair[0], "--tls-key", locked)
    assert error.endswith("expected its key without a passphrase")


def test_a_file_that_is_none_or_may_not_be_read_is_named(start_error, pair, tmp_path):
    options = ("--tls-cert", pair[0], "--tls-key")
    assert start_error(*options, tmp_path) == (f"--tls-key {tmp_path} is not a regular file")
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert start_error(*options, loop) == (f"--tls-key {loop}: Too many levels of symbolic links")


@pytest.mark.parametrize("option", ["--tls-cert", "--tls-key", "--tls-client-ca"])
def test_half_of_the_options_is_an_error(start_error, pair, option):
    error = start_error(option, pair[0])
    assert error == f"got {option} {pair[0]} alone, expected --tls-cert and --tls-key"


def test_files_with_a_byte_order_mark_are_read(secure, authority, tmp_path):
    files = {}
    certificate, key = authority.sign("marked")
    for name, source in (("ca", authority.certificate), ("crt", certificate), ("key", key)):
        files[name] = tmp_path / name
        files[name].write_bytes(b"\xef\xbb\xbf" + source.read_bytes())
    server = secure(files["crt"], files["key"])
    assert len(labels(server, ca=files["ca"])) > 0


# The client's own files.


def test_the_client_names_files_that_are_no_use(pair, authority, tmp_path):
    junk = tmp_path / "junk"
    junk.write_text("no token in here\n")
    with pytest.raises(UsageError, match=f"{junk} holds no PEM certificate"):
        Credentials.of_files(ca=junk)
    with pytest.raises(UsageError, match=f"{junk} holds no token"):
        Credentials.of_files(token=junk)
    with pytest.raises(UsageError, match="absent: No such file"):
        Credentials.of_files(ca=tmp_path / "absent")
    other = authority.sign("another")[1]
    with pytest.raises(UsageError, match=f"{other} is not the PEM key of {pair[0]}"):
        Credentials.of_files(ca=authority.certificate, certificate=pair[0], key=other)


def test_the_client_refuses_credentials_that_contradict_each_other():
    with pytest.raises(UsageError, match="expected both"):
        Credentials(ca=b"x", certificate=b"y")
    with pytest.raises(UsageError, match="requires CA certificates"):
        Credentials(server_name="x")


def test_keys_and_tokens_are_not_shown():
    shown = repr(Credentials(ca=b"x", certificate=b"y", key=b"hidden", token="concealed"))
    assert "hidden" not in shown
    assert "concealed" not in shown
