"""A request's header block, checked by the rules of HTTP/2 (RFC 9113, section 8) and of gRPC."""

from dataclasses import dataclass

from transport import call
from transport.compression import ENCODINGS
from transport.http2 import fields
from transport.http2.headers import Headers, list_size
from transport.status import Code, Metadata, StatusError

_PSEUDO = frozenset((":method", ":scheme", ":path", ":authority"))


@dataclass(frozen=True, slots=True)
class Request:
    """What a header block asks for. `malformed` says why it is not HTTP/2, else it is empty."""

    headers: Headers
    malformed: str = ""
    path: str = ""
    content_length: int | None = None
    # The HTTP status of an answer to what is not gRPC.
    http_status: int = 200
    refused: StatusError | None = None
    metadata: Metadata = ()
    timeout_s: float | None = None
    encoding: str = "identity"
    accept: frozenset[str] = frozenset()
    size: int = 0


def parse(headers: Headers) -> Request:
    """Read a request's headers; nothing is raised."""
    fault = fields.malformed(headers, _PSEUDO)
    values = dict(headers)
    if not fault:
        missing = [name for name in (":method", ":scheme", ":path") if not values.get(name)]
        if missing:
            fault = f"the pseudo-header {missing[0]} is missing"
    length = values.get("content-length")
    if length is not None and not (length.isascii() and length.isdigit()):
        fault = "content-length is not a number"
    if fault:
        return Request(headers, malformed=fault)
    content_length = None if length is None else int(length[:20])
    http_status = _http_status(values)
    path = values[":path"]
    if http_status != 200:
        return Request(headers, "", path, content_length, http_status)
    try:
        return _grpc(headers, values, path, content_length)
    except StatusError as error:
        return Request(headers, "", path, content_length, refused=error)


def _grpc(
    headers: Headers, values: dict[str, str], path: str, content_length: int | None
) -> Request:
    timeout = values.get("grpc-timeout")
    encoding = values.get("grpc-encoding", "identity")
    if encoding not in ENCODINGS:
        raise StatusError(
            Code.UNIMPLEMENTED,
            f"grpc-encoding is not known, expected one of {call.ACCEPT_ENCODING}",
        )
    return Request(
        headers,
        "",
        path,
        content_length,
        metadata=call.decode_metadata(headers),
        timeout_s=None if timeout is None else call.decode_timeout(timeout),
        encoding=encoding,
        accept=frozenset(values.get("grpc-accept-encoding", "").replace(" ", "").split(",")),
        size=list_size(headers),
    )


def _http_status(values: dict[str, str]) -> int:
    if values[":method"] != "POST":
        return 405
    kind = values.get("content-type", "").lower()
    rest = kind[len(call.CONTENT_TYPE) :]
    if not kind.startswith(call.CONTENT_TYPE) or (rest and rest[0] not in "+;"):
        return 415
    return 200
