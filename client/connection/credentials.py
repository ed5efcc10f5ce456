"""Credentials of a client, and how it authenticates servers."""

import ssl
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from ipaddress import ip_address
from pathlib import Path

from client.errors import UsageError
from protos import text_file
from protos.errors import InvalidText


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Certificates as PEM; a token that is sent with every call.

    `ca`: certificates that authenticate the server; enables TLS. `certificate`, `key`: the client's
    own, for a server that requires client certificates. `server_name`: the name on the server's
    certificate, if it is not the host of the address, of several the first.
    `plaintext_token`: whether the token may leave the machine without TLS, because another layer
    encrypts.

    UsageError if they contradict each other.
    """

    ca: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = field(default=None, repr=False)
    server_name: str | None = None
    token: str | None = field(default=None, repr=False)
    plaintext_token: bool = False

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise UsageError("got a client certificate or its key alone, expected both")
        if self.ca is None and (self.certificate or self.server_name):
            raise UsageError("TLS requires CA certificates to authenticate the server")

    @classmethod
    def of_files(
        cls,
        *,
        ca: Path | None = None,
        certificate: Path | None = None,
        key: Path | None = None,
        token: Path | None = None,
    ) -> "Credentials":
        """Read PEM files, and a file with only a token in it; UsageError names the file."""
        text = None if token is None else _text(token).strip()
        if text is not None and (not text.isascii() or len(text.split()) != 1):
            raise UsageError(f"{token} holds no token, or more than one")
        if certificate is not None and key is not None:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, "")
            except (ssl.SSLError, ValueError):
                raise UsageError(f"{key} is not the PEM key of {certificate}") from None
        return cls(
            ca=_read_ca(ca),
            certificate=_text(certificate).encode() if certificate else None,
            key=_text(key).encode() if key else None,
            token=text,
        )

    def check_addresses(self, addresses: Sequence[str]) -> None:
        """Raise UsageError if the token would be sent in plain text."""
        abroad = [address for address in addresses if not _is_local(address)]
        if self.ca is None and self.token is not None and not self.plaintext_token and abroad:
            raise UsageError(f"the token would go to {abroad[0]} without TLS, expected a CA")

    def tls_context(self) -> ssl.SSLContext | None:
        """Settings of TLS; None without it. UsageError for certificates that are not PEM."""
        if self.ca is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # A certificate of `ca` is trusted, also one that another authority signed.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        try:
            context.load_verify_locations(cadata=self.ca.decode("ascii"))
        except (ssl.SSLError, ValueError):
            raise UsageError("the CA certificates are not PEM certificates") from None
        if self.certificate is not None and self.key is not None:
            try:
                _load_pair(context, self.certificate, self.key)
            except (ssl.SSLError, ValueError):
                raise UsageError("the client certificate and its key are not a PEM pair") from None
        return context

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Metadata of every call."""
        return () if self.token is None else (("authorization", f"Bearer {self.token}"),)


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialFiles:
    """Absolute paths of the files of `Credentials.of_files`, None for absent ones.

    Unlike their content, paths may be passed to other processes, and kept in records.
    """

    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    token: str | None = None

    def read(self) -> Credentials:
        """Credentials from the files' current content; UsageError names a bad file."""
        named = {name: Path(path) for name, path in asdict(self).items() if path is not None}
        return Credentials.of_files(**named)


def _is_local(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    if address.startswith("unix:") or host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _text(path: Path) -> str:
    try:
        return text_file.decode(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except InvalidText as error:
        raise UsageError(f"{path}: {error}") from None


def _read_ca(path: Path | None) -> bytes | None:
    if path is None:
        return None
    text = _text(path)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError):
        raise UsageError(f"{path} holds no PEM certificate") from None
    return text.encode()


def _load_pair(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Load a client certificate; `ssl` reads it from files only."""
    with tempfile.NamedTemporaryFile() as file:  # nobody else may read it
        file.write(key + b"\n" + certificate)
        file.flush()
        # With a password, none is asked for at the terminal.
        context.load_cert_chain(file.name, password="")
