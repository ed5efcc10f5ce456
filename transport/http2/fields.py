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
    """Why HTTP/2 forbids a header block in which the `pseudo` headers are allowed; "" if not.

    The text goes to the log, before anybody has checked who the peer is: it has none of the peer's
    own words, which may be secrets.
    """
    seen: set[str] = set()
    regular = False
    for name, value in headers:
        if name.startswith(":"):
            if regular or name in seen or name not in pseudo:
                shown = f"{name} " if name in pseudo else ""
                return f"the pseudo-header {shown}is not allowed there"
            seen.add(name)
        else:
            regular = True
            if _NAME.fullmatch(name) is None:
                return "a header has a name that is not allowed"
            if name in _CONNECTION_HEADERS:
                return f"the header {name} is not allowed"
            if name == "te" and value != "trailers":
                return "the header te is not allowed with its value, expected trailers"
        if _BAD_VALUE.search(value) is not None:
            return "a header has a value with a character that is not allowed"
    return ""
