"""A response's header block, as the client reads it."""

from dataclasses import dataclass

from transport import call
from transport.compression import ENCODINGS
from transport.http2 import fields
from transport.http2.headers import MAX_LIST_BYTES, Headers, list_size
from transport.status import Code, Metadata, Status, StatusError, of_http

_PSEUDO = frozenset((":status",))


@dataclass(frozen=True, slots=True)
class Response:
    """Headers or trailers. `malformed` says why they are not HTTP/2, else it is empty."""

    malformed: str = ""
    http_status: int | None = None
    metadata: Metadata = ()
    encoding: str = "identity"
    # Of headers that cannot start an answer: why the call fails.
    refused: Status | None = None
    # Of trailers.
    status: Status | None = None


def parse(headers: Headers) -> Response:
    """Read a header block; nothing is raised."""
    fault = fields.malformed(headers, _PSEUDO)
    values = dict(headers)
    http_status = values.get(":status")
    if http_status is not None and not (http_status.isascii() and http_status.isdigit()):
        fault = f"got :status {http_status!r}"
    if fault:
        return Response(fault)
    number = None if http_status is None else int(http_status[:4])
    if list_size(headers) > MAX_LIST_BYTES:
        over = Status(
            Code.RESOURCE_EXHAUSTED, f"the answer has more than {MAX_LIST_BYTES} bytes of headers"
        )
        return Response("", number, refused=over, status=over)
    status = call.decode_status(headers)
    encoding = values.get("grpc-encoding", "identity")
    try:
        metadata = call.decode_metadata(headers)
    except StatusError as error:
        return Response("", number, refused=error.status, status=status)
    return Response("", number, metadata, encoding, _refused(number, encoding, values), status)


def _refused(http_status: int | None, encoding: str, values: dict[str, str]) -> Status | None:
    if http_status is not None and http_status != 200:
        return Status(of_http(http_status), f"the answer is HTTP status {http_status}")
    kind = values.get("content-type", "")
    if http_status is not None and not kind.startswith(call.CONTENT_TYPE):
        return Status(
            Code.UNKNOWN, f"the answer has the content-type {kind!r}, expected {call.CONTENT_TYPE}"
        )
    if encoding not in ENCODINGS:
        return Status(Code.INTERNAL, f"grpc-encoding: got {encoding!r}, which was not offered")
    return None
