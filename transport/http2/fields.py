"""The rules of HTTP/2 for the fields of a header block (RFC 9113, section 8)."""

import re

from transport.http2.headers import Headers

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")
# White space at its ends is let through, though it should not be there: grpcio and Go take it.
_BAD_VALUE = re.compile(r"[\x00\r\n]")
# Of one hop; HTTP/2 has no place for them.
_CONNECTION_HEADERS = frozenset(
    ("connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade")
)


def malformed(headers: Headers, pseudo: frozenset[str]) -> str:
    """Why HTTP/2 forbids a header block in which the `pseudo` headers are allowed; "" if not."""
    seen: set[str] = set()
    regular = False
    for name, value in headers:
        fault = ""
        if name.startswith(":"):
            if regular or name in seen or name not in pseudo:
                fault = f"the pseudo-header {name!r} is not allowed there"
            seen.add(name)
        else:
            regular = True
            if _NAME.fullmatch(name) is None:
                fault = f"the header name {name!r} is not allowed"
            elif name in _CONNECTION_HEADERS or (name == "te" and value != "trailers"):
                # Faults are logged; values may be secrets.
                fault = f"the header {name} is not allowed with its value"
        if fault:
            return fault
        if _BAD_VALUE.search(value) is not None:
            return f"the value of {name} is not allowed"
    return ""
