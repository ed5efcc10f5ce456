"""TLS by the standard library, with ALPN for HTTP/2, and nothing older than TLS 1.2."""

import socket
import ssl
from collections.abc import Callable
from typing import Any

from transport.loop import READ, WRITE, Loop

ALPN = "h2"


def require_http2(context: ssl.SSLContext) -> ssl.SSLContext:
    """Set what HTTP/2 asks for on a context, and return it."""
    context.set_alpn_protocols([ALPN])
    context.minimum_version = max(context.minimum_version, ssl.TLSVersion.TLSv1_2)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    return context


def server_context(certificate: str, key: str, client_ca: str | None = None) -> ssl.SSLContext:
    """A context of PEM files; with `client_ca` clients need a certificate signed by it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(client_ca)
    return require_http2(context)


def auth_context(sock: socket.socket) -> dict[str, list[bytes]]:
    """What is known of the peer, by the names that gRPC gives it; empty without TLS."""
    if not isinstance(sock, ssl.SSLSocket):
        return {}
    context = {
        "transport_security_type": [b"ssl"],
        "security_level": [b"TSI_PRIVACY_AND_INTEGRITY"],
    }
    certificate = sock.getpeercert()
    raw = sock.getpeercert(binary_form=True)
    if not certificate or raw is None:
        return context
    subject: Any = certificate.get("subject", ())
    others: Any = certificate.get("subjectAltName", ())
    names = [value for group in subject for key, value in group if key == "commonName"]
    context["x509_common_name"] = [name.encode() for name in names]
    context["x509_subject_alternative_name"] = [name.encode() for _, name in others]
    context["x509_pem_cert"] = [ssl.DER_cert_to_PEM_cert(raw).encode()]
    return {key: values for key, values in context.items() if values}


class Handshake:
    """The handshake of one accepted connection, in the I/O thread."""

    def __init__(
        self,
        loop: Loop,
        sock: ssl.SSLSocket,
        timeout_s: float,
        done: Callable[[ssl.SSLSocket | None, str], None],
    ) -> None:
        """`done` gets the socket, no longer watched, or None and why the handshake failed."""
        self._loop = loop
        self._sock = sock
        self._done = done
        self._timer = loop.call_later(timeout_s, lambda: self._end("it took too long"))
        self._open = True
        loop.watch(sock, READ, self._on_event)

    def _on_event(self, events: int) -> None:
        try:
            self._sock.do_handshake()
        except ssl.SSLWantReadError:
            self._loop.change(self._sock, READ, self._on_event)
        except ssl.SSLWantWriteError:
            self._loop.change(self._sock, READ | WRITE, self._on_event)
        except OSError as error:
            self._end(str(error))
        else:
            protocol = self._sock.selected_alpn_protocol()
            self._end("" if protocol == ALPN else f"got ALPN {protocol!r}, expected {ALPN!r}")

    def close_soon(self) -> None:
        """Give up; any thread."""
        self._loop.call_soon(lambda: self._end("the server stops"))

    def _end(self, failure: str) -> None:
        if not self._open:
            return
        self._open = False
        self._timer.cancel()
        self._loop.forget(self._sock)
        if failure:
            self._sock.close()
        self._done(None if failure else self._sock, failure)


def wrap_server(context: ssl.SSLContext, sock: socket.socket) -> ssl.SSLSocket:
    """A socket whose handshake is still to be done, without waiting."""
    return context.wrap_socket(
        sock, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=True
    )
