"""Explain why a server cannot be reached, from the errors of the system and of TLS."""

import errno
import socket
import ssl
from collections.abc import Sequence

from client.connection.credentials import Credentials
from client.errors import Unavailable, Unreachable
from transport.calling.failures import ClosedEarly, NotConnected, NotHttp2, NotServing

# Why something failed, and whether waiting helps.
_Explained = tuple[str, bool]

# <openssl/x509_vfy.h>
_UNTRUSTED, _EXPIRED, _OTHER_NAME = (18, 19, 20, 21), (10,), (62, 64)
_OF_VERIFY_CODE: dict[int, str] = {
    **dict.fromkeys(
        _UNTRUSTED, "the server's certificate is not signed by a certificate of the given CA"
    ),
    **dict.fromkeys(_EXPIRED, "the server's certificate has expired"),
    **dict.fromkeys(
        _OTHER_NAME,
        "the server's certificate is for another name; set `server_name` if that is right",
    ),
}
# OpenSSL's reasons when the answer to its greeting is not TLS.
_NO_TLS = ("WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE")
_OF_ERRNO = {
    errno.ECONNREFUSED: "connection refused, no server listens there",
    errno.ENOENT: "the socket does not exist",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EHOSTUNREACH: "the network does not reach that host",
    errno.ENETUNREACH: "the network does not reach that host",
}


def unreachable(
    status: NotConnected, addresses: Sequence[str], credentials: Credentials
) -> Unavailable:
    """The error of a call that reached no server; Unreachable if there is no connection."""
    if all(isinstance(failure.cause, NotServing) for failure in status.failures):
        return Unavailable(status.code.name, status.text)
    explained = {each.target: _explained(each.cause, credentials) for each in status.failures}
    meanings = list(dict.fromkeys(meaning for meaning, _ in explained.values()))
    if len(meanings) > 1:
        meanings = [f"{target}: {meaning}" for target, (meaning, _) in explained.items()]
    return Unreachable(
        f"cannot connect to {','.join(addresses)}: {'; '.join(meanings)}",
        # Of several servers one is enough.
        waiting_helps=any(helps for _, helps in explained.values()),
    )


def _explained(cause: Exception, credentials: Credentials) -> _Explained:
    # In this order: errors of TLS and of names are of OSError too.
    if isinstance(cause, ssl.SSLCertVerificationError):
        other = f"the server's certificate was rejected: {cause.verify_message}"
        meaning = _OF_VERIFY_CODE.get(cause.verify_code, other)
    elif isinstance(cause, ssl.SSLError) and cause.reason in _NO_TLS:
        meaning = "the server does not speak TLS; connect without a CA"
    elif isinstance(cause, NotHttp2):
        meaning = "something that is not a gRPC server listens there"
    else:
        return _passing(cause, credentials), True
    return meaning, False


def _passing(cause: Exception, credentials: Credentials) -> str:
    """The meaning of what may be over later."""
    if isinstance(cause, socket.gaierror | UnicodeError):
        return "the host name cannot be resolved"
    if isinstance(cause, TimeoutError):
        return "no response, the connection timed out"
    if isinstance(cause, OSError) and cause.errno in _OF_ERRNO:
        return _OF_ERRNO[cause.errno]
    if isinstance(cause, ConnectionError | ClosedEarly | ssl.SSLError):
        return f"the server closed the connection; {_closed_because(credentials)}"
    return str(cause)


def _closed_because(credentials: Credentials) -> str:
    if credentials.ca is None:
        return "it may expect TLS"
    if credentials.certificate is None:
        return "it may expect a client certificate"
    return "it may not trust the client certificate"
