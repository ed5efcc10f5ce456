"""Make the server's TLS credentials from files that may be replaced while it runs."""

import logging
import os
import re
import ssl
from collections.abc import Callable
from pathlib import Path

import grpc

from protos import text_file
from protos.errors import InvalidText
from server.errors import StartError
from server.rpc.security import key_kinds
from server.rpc.security.watched_files import Contents, Files, WatchedFiles
from transport.tls import require_http2

_log = logging.getLogger(__name__)
# The server's own certificate comes first.
_FIRST = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_TOO_SMALL = "EE_KEY_TOO_SMALL"
CERTIFICATE, KEY, CLIENT_CA = "--tls-cert", "--tls-key", "--tls-client-ca"


def server_credentials(
    certificate: Path, key: Path, client_ca: Path | None
) -> grpc.ServerCredentials:
    """Credentials from PEM files for grpcio, which are checked for changes before each handshake.

    With `client_ca`, clients must present a certificate signed by one of its certificates.
    StartError names the file that is missing, is not PEM, or does not match the other, and the kind
    of a key that cannot be served.
    """
    files = _files(certificate, key, client_ca)

    def read(contents: Contents) -> grpc.ServerCertificateConfiguration:
        # gRPC would find out at the first handshake only, and not say which file it is.
        contents, _ = _checked(files, contents)
        kind = _kind(files, contents)
        if not key_kinds.for_every_client(kind):
            raise _refused(files, kind, "--transport grpcio")
        return grpc.ssl_server_certificate_configuration(
            [(contents[KEY], contents[CERTIFICATE])], root_certificates=contents.get(CLIENT_CA)
        )

    watched = WatchedFiles(files, read)
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


def server_context(
    certificate: Path, key: Path, client_ca: Path | None
) -> Callable[[], ssl.SSLContext]:
    """The same for the project's own transport: what gives the context of the next handshake."""
    files = _files(certificate, key, client_ca)

    def read(contents: Contents) -> ssl.SSLContext:
        contents, context = _checked(files, contents)
        kind = _kind(files, contents)
        if not key_kinds.for_some_clients(kind):
            raise _refused(files, kind, "gRPC")
        if not key_kinds.for_every_client(kind):
            _log.warning(
                "some clients cannot connect: gRPC in C, C++, Python, Ruby and PHP does not take "
                "the certificate's key",
                extra={"key": kind, "hint": key_kinds.EXPECTED},
            )
        if CLIENT_CA in contents:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cadata=contents[CLIENT_CA].decode("ascii"))
        return require_http2(context)

    return WatchedFiles(files, read).current


def _files(certificate: Path, key: Path, client_ca: Path | None) -> Files:
    files = {CERTIFICATE: certificate, KEY: key}
    return files if client_ca is None else files | {CLIENT_CA: client_ca}


def _checked(files: Files, contents: Contents) -> tuple[Contents, ssl.SSLContext]:
    """The files as PEM, and a context that has the certificate and its key."""
    contents = {option: _pem(option, files, data) for option, data in contents.items()}
    for option in contents.keys() - {KEY}:
        try:
            ssl.create_default_context(cadata=contents[option].decode("ascii"))
        except (ssl.SSLError, ValueError):
            raise StartError(f"{option} {files[option]} holds no PEM certificate") from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        _load_pair(context, contents[KEY] + b"\n" + contents[CERTIFICATE])
    except (ssl.SSLError, ValueError) as error:
        if getattr(error, "reason", None) == _TOO_SMALL:
            raise StartError(
                f"{CERTIFICATE} {files[CERTIFICATE]} has a key that is too small, "
                f"{key_kinds.EXPECTED}, with RSA of 2048 bits or more"
            ) from None
        raise StartError(
            f"{KEY} {files[KEY]} is not the PEM key of {CERTIFICATE} {files[CERTIFICATE]}, "
            "expected its key without a passphrase"
        ) from None
    return contents, context


def _kind(files: Files, contents: Contents) -> str:
    """The kind of the certificate's key."""
    first = _FIRST.search(contents[CERTIFICATE].decode("ascii"))
    try:
        return key_kinds.kind(ssl.PEM_cert_to_DER_cert("" if first is None else first[0]))
    except ValueError:
        raise StartError(f"{CERTIFICATE} {files[CERTIFICATE]} holds no PEM certificate") from None


def _refused(files: Files, kind: str, who: str) -> StartError:
    return StartError(
        f"{CERTIFICATE} {files[CERTIFICATE]} has a key that {who} cannot serve: got {kind}, "
        f"{key_kinds.EXPECTED}"
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
