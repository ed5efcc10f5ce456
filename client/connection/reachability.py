"""Explain why a server cannot be reached, from gRPC's error text."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from client.connection.credentials import Credentials
from client.errors import Unreachable

# Starts of gRPC's texts for calls that never reached a server, unlike errors from servers.
_NO_CONNECTION = re.compile(
    r"failed to connect to all addresses|connections to all backends failing"
    r"|errors resolving|DNS resolution failed|Name resolution failure"
)
_LAST_ERROR = re.compile(r"last error: (?:[A-Z_]+: )?(.*)", re.DOTALL)
_VERIFY_FAILED = re.compile(r"CERTIFICATE_VERIFY_FAILED: ([^:\]]+)")


@dataclass(frozen=True, slots=True)
class _Cause:
    """Pattern of gRPC's text, its meaning, and whether waiting helps."""

    pattern: str
    meaning: str
    waiting_helps: bool = True


# In this order: texts of handshakes quote the connection's own errors.
_CAUSES = (
    _Cause(
        "unable to get local issuer certificate|self.signed certificate",
        "the server's certificate is not signed by a certificate of the given CA",
        waiting_helps=False,
    ),
    _Cause(
        "certificate has expired",
        "the server's certificate has expired",
        waiting_helps=False,
    ),
    _Cause(
        "Hostname Verification Check failed",
        "the server's certificate is for another name; set `server_name` if that is right",
        waiting_helps=False,
    ),
    _Cause(
        "WRONG_VERSION_NUMBER",
        "the server does not speak TLS; connect without a CA",
        waiting_helps=False,
    ),
    _Cause(
        "http1.x server|Failed parsing HTTP/2",
        "something that is not a gRPC server listens there",
        waiting_helps=False,
    ),
    _Cause(
        "errors resolving|DNS resolution failed|Name resolution failure|hostname lookup",
        "the host name cannot be resolved",
    ),
    _Cause("Connection refused", "connection refused, no server listens there"),
    _Cause("No such file or directory", "the socket does not exist"),
    _Cause("Permission denied", "permission denied"),
    _Cause("No route to host|Network is unreachable", "the network does not reach that host"),
    _Cause("timed out|handshaker shutdown|Timeout", "no response, the connection timed out"),
)


def unreachable(
    text: str, addresses: Sequence[str], credentials: Credentials
) -> Unreachable | None:
    """The error that `text`, of a call that was UNAVAILABLE, stands for.

    None if the error is from a server, or from an established connection that broke.
    """
    if not _NO_CONNECTION.search(text):
        return None
    for cause in _CAUSES:
        if re.search(cause.pattern, text):
            meaning, waiting_helps = cause.meaning, cause.waiting_helps
            break
    else:
        meaning, waiting_helps = _unforeseen(text, credentials), True
    where = ",".join(addresses)
    return Unreachable(f"cannot connect to {where}: {meaning}", waiting_helps=waiting_helps)


def _unforeseen(text: str, credentials: Credentials) -> str:
    failed = _VERIFY_FAILED.search(text)
    if failed:
        return f"the server's certificate was rejected: {failed[1].strip()}"
    if re.search("Socket closed|Connection reset|Broken pipe|Unwrap failed", text):
        if credentials.ca is None:
            return "the server closed the connection; it may expect TLS"
        if credentials.certificate is None:
            return "the server closed the connection; it may expect a client certificate"
        return "the server closed the connection; it may not trust the client certificate"
    last = _LAST_ERROR.search(text)
    return last[1] if last else text
