"""Make the server's TLS credentials from files that may be replaced while it runs."""

import os
import ssl
from pathlib import Path

import grpc

from protos import text_file
from protos.errors import InvalidText
from server.errors import StartError
from server.rpc.security.watched_files import Contents, Files, WatchedFiles

CERTIFICATE, KEY, CLIENT_CA = "--tls-cert", "--tls-key", "--tls-client-ca"


def server_credentials(
    certificate: Path, key: Path, client_ca: Path | None
) -> grpc.ServerCredentials:
    """Credentials from PEM files, which are checked for changes before each handshake.

    With `client_ca`, clients must present a certificate signed by one of its certificates.
    StartError names the file that is missing, is not PEM, or does not match the other.
    """
    files = {CERTIFICATE: certificate, KEY: key}
    if client_ca is not None:
        files[CLIENT_CA] = client_ca
    watched = WatchedFiles(files, lambda contents: _configuration(files, contents))
    in_use = watched.current()

    def changed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal in_use
        now = watched.current()
        if now is in_use:
            return None
        in_use = now
        return now

    return grpc.dynamic_ssl_server_credentials(
        in_use, changed, require_client_authentication=client_ca is not None
    )


def _configuration(files: Files, contents: Contents) -> grpc.ServerCertificateConfiguration:
    # gRPC would fail only at the first handshake, and not name the file.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    contents = {option: _pem(option, files, data) for option, data in contents.items()}
    for option in contents.keys() - {KEY}:
        try:
            context.load_verify_locations(cadata=contents[option].decode("ascii"))
        except (ssl.SSLError, ValueError):
            raise StartError(f"{option} {files[option]} holds no PEM certificate") from None
    try:
        _load_pair(context, contents[KEY] + b"\n" + contents[CERTIFICATE])
    except (ssl.SSLError, ValueError):
        raise StartError(
            f"{KEY} {files[KEY]} is not the PEM key of {CERTIFICATE} {files[CERTIFICATE]}, "
            "expected its key without a passphrase"
        ) from None
    return grpc.ssl_server_certificate_configuration(
        [(contents[KEY], contents[CERTIFICATE])], root_certificates=contents.get(CLIENT_CA)
    )


def _pem(option: str, files: Files, data: bytes) -> bytes:
    """Return a file as OpenSSL reads it: editors may have put a byte order mark before."""
    try:
        return text_file.decode(data).encode()
    except InvalidText as error:
        raise StartError(f"{option} {files[option]} holds no PEM: {error}") from None


def _load_pair(context: ssl.SSLContext, pair: bytes) -> None:
    # The ssl module takes paths alone, and the files may have changed since they were read.
    descriptor = os.memfd_create("pair")
    try:
        os.write(descriptor, pair)
        # An empty passphrase, or OpenSSL would prompt for one on the terminal.
        context.load_cert_chain(f"/proc/self/fd/{descriptor}", password="")
    finally:
        os.close(descriptor)
