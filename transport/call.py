"""A call's headers, as both sides write and read them: metadata, deadline, status."""

import base64
import binascii
import math
import re
from collections.abc import Iterable

from transport.compression import ENCODINGS
from transport.http2.headers import Headers
from transport.status import Code, Metadata, Status, StatusError, code_of, escape, unescape

CONTENT_TYPE = "application/grpc"
ACCEPT_ENCODING = ",".join(ENCODINGS)

_KEY = re.compile(r"[0-9a-z_.-]+")
_TEXT = re.compile(r"[ -~]*")
_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")
_UNIT_S = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_MOST_DIGITS = 99_999_999
_BINARY = "-bin"
# Of the protocol itself; the handler of a call does not see them.
RESERVED = frozenset(
    {
        *("te", "content-type", "content-length", "host"),
        *("grpc-timeout", "grpc-encoding", "grpc-accept-encoding"),
        *("grpc-status", "grpc-message"),
    }
)


def encode_timeout(timeout_s: float) -> str:
    """A grpc-timeout of at least `timeout_s`, or the longest that there is."""
    timeout_s = min(max(timeout_s, 0.0), _MOST_DIGITS * _UNIT_S["H"])
    for unit in "umSM":
        amount = math.ceil(timeout_s / _UNIT_S[unit])
        if amount <= _MOST_DIGITS:
            return f"{amount}{unit}"
    return f"{math.ceil(timeout_s / _UNIT_S['H'])}H"


def decode_timeout(value: str) -> float:
    """Seconds; StatusError where `value` is no grpc-timeout."""
    found = _TIMEOUT.fullmatch(value)
    if found is None:
        raise StatusError(Code.INTERNAL, "grpc-timeout is not valid, expected digits and a unit")
    return int(found[1]) * _UNIT_S[found[2]]


def encode_metadata(metadata: Iterable[tuple[str, str | bytes]]) -> list[tuple[str, str]]:
    """Headers of metadata. ValueError for a key or a value that cannot be sent."""
    headers = []
    for key, value in metadata:
        if _KEY.fullmatch(key) is None or key in RESERVED:
            raise ValueError(f"metadata: the key {key!r} is not allowed")
        if key.endswith(_BINARY):
            raw = value.encode() if isinstance(value, str) else value
            headers.append((key, base64.b64encode(raw).decode().rstrip("=")))
            continue
        text = value if isinstance(value, str) else str(value, "latin-1")
        if _TEXT.fullmatch(text) is None:
            raise ValueError(f"metadata: the value of {key!r} is not printable ASCII")
        headers.append((key, text))
    return headers


def decode_metadata(headers: Headers) -> Metadata:
    """Metadata without the protocol's own headers; StatusError where base64 is damaged."""
    metadata: list[tuple[str, str | bytes]] = []
    for key, value in headers:
        if key in RESERVED or key.startswith(":"):
            continue
        if not key.endswith(_BINARY):
            metadata.append((key, value))
            continue
        # A proxy may have joined several values.
        metadata += [(key, _decode_binary(part)) for part in value.split(",")]
    return tuple(metadata)


def _decode_binary(value: str) -> bytes:
    value = value.strip().rstrip("=")
    try:
        return base64.b64decode(value + "=" * (-len(value) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise StatusError(
            Code.INTERNAL, f"metadata: a value of a key with {_BINARY} is not base64"
        ) from None


def encode_status(status: Status) -> list[tuple[str, str]]:
    """The trailers of a status."""
    headers = [("grpc-status", str(int(status.code)))]
    if status.text:
        headers.append(("grpc-message", escape(status.text)))
    return headers + encode_metadata(status.trailing)


def decode_status(headers: Headers) -> Status | None:
    """The status in trailers; None where there is none."""
    values = dict(headers)
    code = values.get("grpc-status")
    if code is None:
        return None
    try:
        trailing = decode_metadata(headers)
    except StatusError as error:
        return error.status
    return Status(code_of(code), unescape(values.get("grpc-message", "")), trailing)
