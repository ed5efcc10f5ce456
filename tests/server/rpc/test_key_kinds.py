"""Keys of every kind: those that gRPC cannot serve are refused, at the start and later."""

import subprocess

import grpc
import pytest
from certificates import Authority
from conftest import PATIENCE_S

from server.errors import StartError
from server.rpc.security import credentials
from transport.serving.server import Server
from transport.status import Code

SERVED = {
    "RSA": ("rsa:2048",),
    "ECDSA with P-256": ("ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
    "ECDSA with P-384": ("ec", "-pkeyopt", "ec_paramgen_curve:P-384"),
}
# By OpenSSL's clients and Go's, and not by gRPC's core.
SERVED_TO_SOME = {
    "ECDSA with P-521": ("ec", "-pkeyopt", "ec_paramgen_curve:P-521"),
    "Ed25519": ("ed25519",),
}
REFUSED = {
    "Ed448": ("ed448",),
    "RSA-PSS": ("rsa-pss", "-pkeyopt", "rsa_keygen_bits:2048"),
    "ECDSA with P-224": ("ec", "-pkeyopt", "ec_paramgen_curve:secp224r1"),
    "ECDSA with secp256k1": ("ec", "-pkeyopt", "ec_paramgen_curve:secp256k1"),
    "ECDSA with brainpoolP256r1": ("ec", "-pkeyopt", "ec_paramgen_curve:brainpoolP256r1"),
    "ECDSA with a curve of its own": (
        *("ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
        *("-pkeyopt", "ec_param_enc:explicit"),
    ),
}


@pytest.fixture
def made(tmp_path):
    """Make a certificate that has signed itself; its path and that of its key."""
    Authority(tmp_path / "skips without openssl")

    def make(kind):
        certificate, key = tmp_path / "tls.pem", tmp_path / "tls.key"
        command = ["openssl", "req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
        command += ["-addext", "subjectAltName=DNS:localhost", "-newkey", *kind]
        subprocess.run(
            [*command, "-keyout", key, "-out", certificate], check=True, capture_output=True
        )
        return certificate, key

    return make


def answers(address, certificate):
    """Whether gRPC's own client gets an answer."""
    trusted = grpc.ssl_channel_credentials(certificate.read_bytes())
    target = f"localhost:{address.rpartition(':')[2]}"
    with grpc.secure_channel(target, trusted) as channel:
        try:
            grpc.channel_ready_future(channel).result(PATIENCE_S)
            channel.unary_unary("/no/Such")(b"", timeout=PATIENCE_S)
        except grpc.RpcError as error:
            return error.code().value[0] == Code.UNIMPLEMENTED
    return False


@pytest.mark.parametrize("kind", SERVED)
def test_keys_that_are_taken_are_served_to_the_client_of_grpc(made, kind):
    certificate, key = made(SERVED[kind])
    server = Server(
        ["127.0.0.1:0"], {}, tls_context=credentials.server_context(certificate, key, None)
    )
    try:
        assert answers(server.addresses[0], certificate)
    finally:
        server.stop()
    credentials.server_credentials(certificate, key, None)


@pytest.mark.parametrize("kind", SERVED_TO_SOME)
def test_keys_for_some_clients_are_served_with_a_warning_and_not_by_grpcio(made, caplog, kind):
    certificate, key = made(SERVED_TO_SOME[kind])
    assert credentials.server_context(certificate, key, None)()
    (record,) = caplog.records
    assert "some clients cannot connect" in record.message
    assert record.key == kind
    with pytest.raises(StartError, match=f"grpcio cannot serve: got {kind}, expected RSA"):
        credentials.server_credentials(certificate, key, None)


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize(
    "credentials_of", [credentials.server_context, credentials.server_credentials]
)
def test_keys_that_nobody_could_use_are_refused_by_name(made, kind, credentials_of):
    certificate, key = made(REFUSED[kind])
    with pytest.raises(StartError, match=f"cannot serve: got {kind}, expected RSA") as caught:
        credentials_of(certificate, key, None)
    assert str(certificate) in str(caught.value)


def test_a_key_that_is_too_small_is_not_called_another_ones(made):
    with pytest.raises(StartError, match="a key that is too small, expected RSA"):
        credentials.server_context(*made(("rsa:1024",)), None)


def test_a_replacement_that_cannot_be_served_is_said_to_be_unused(made, caplog):
    certificate, key = made(SERVED["RSA"])
    context = credentials.server_context(certificate, key, None)
    before = context()
    made(REFUSED["ECDSA with secp256k1"])
    assert context() is before
    (record,) = caplog.records
    assert record.message == "changed files cannot be used, keeping the old content"
    assert "got ECDSA with secp256k1" in record.reason
