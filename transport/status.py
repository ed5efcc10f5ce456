"""How a call ends: a code, a text, metadata; and how they are written in trailers."""

import re
from dataclasses import dataclass
from enum import IntEnum
from urllib.parse import unquote_to_bytes

from transport.http2.frames import ErrorCode

Metadata = tuple[tuple[str, str | bytes], ...]


class Code(IntEnum):
    """gRPC's status codes."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


@dataclass(frozen=True, slots=True)
class Status:
    """The end of a call; `trailing` goes into its trailers beside code and text."""

    code: Code
    text: str = ""
    trailing: Metadata = ()


OK = Status(Code.OK)
DEADLINE_EXCEEDED = Status(Code.DEADLINE_EXCEEDED, "Deadline Exceeded")


class StatusError(Exception):
    """Ends the call in which it is raised with `status`."""

    def __init__(self, code: Code, text: str, trailing: Metadata = ()) -> None:
        super().__init__(f"{code.name}: {text}")
        self.status = Status(code, text, trailing)


_TO_ESCAPE = re.compile(rb"[^ -$&-~]")


def escape(text: str) -> str:
    """A grpc-message: percent-encoded UTF-8."""
    raw = text.encode("utf-8", "surrogatepass")
    return _TO_ESCAPE.sub(lambda found: b"%%%02X" % found[0][0], raw).decode("ascii")


def unescape(value: str) -> str:
    """The text of a grpc-message; what is not valid is kept as far as it can be read."""
    return unquote_to_bytes(value.encode("latin-1")).decode("utf-8", "replace")


# gRPC over HTTP/2, "HTTP2 Transport Mapping".
_OF_RESET = {
    ErrorCode.REFUSED_STREAM: Code.UNAVAILABLE,
    ErrorCode.CANCEL: Code.CANCELLED,
    ErrorCode.ENHANCE_YOUR_CALM: Code.RESOURCE_EXHAUSTED,
    ErrorCode.INADEQUATE_SECURITY: Code.PERMISSION_DENIED,
}
_OF_HTTP = {
    400: Code.INTERNAL,
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.UNIMPLEMENTED,
    429: Code.UNAVAILABLE,
    502: Code.UNAVAILABLE,
    503: Code.UNAVAILABLE,
    504: Code.UNAVAILABLE,
}


def of_reset(code: int) -> Code:
    """The status of a call whose stream the peer reset."""
    try:
        return _OF_RESET.get(ErrorCode(code), Code.INTERNAL)
    except ValueError:
        return Code.INTERNAL


def of_http(status: int) -> Code:
    """The status of an answer that is not gRPC's."""
    return _OF_HTTP.get(status, Code.UNKNOWN)


def code_of(value: str) -> Code:
    """The code of a grpc-status; UNKNOWN where it is none."""
    try:
        return Code(int(value))
    except ValueError:
        return Code.UNKNOWN
