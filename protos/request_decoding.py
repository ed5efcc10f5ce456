"""Read requests, and bound what that takes before it is done.

Nearly all messages are quick to read: a few small fields, and tensors that stay where they lie. Any
other is weighed first (`weight.py`), so that its reader can find room for what it becomes, and a
thread that may take its time.
"""

from dataclasses import dataclass
from functools import lru_cache

from protos import inference_pb2 as pb
from protos.codec import (
    REMEMBERED_HEADER_BYTES,
    REMEMBERED_HEADERS,
    Header,
    InferRequest,
    id_of,
    parse,
    read_header,
    request_header,
    views,
)
from protos.errors import InvalidMessage
from protos.tensors import read_tensors
from protos.weight import MOST_FIELDS, GoOn, Weight, go_on, weigh
from protos.wire import RememberedStarts, Split, first, open_field, split

_KIND = pb.ModelInferRequest
_RAW_INPUT_FIELD = _KIND.RAW_INPUT_CONTENTS_FIELD_NUMBER
_REQUEST_ID_FIELD = _KIND.ID_FIELD_NUMBER
# Of a message that is decoded at once; a header has so many fields, or fewer.
_QUICK_FIELDS = 64
_QUICK_ELEMENTS = 16
_QUICK_COPY_BYTES = 16 * 1024
# Where the data of a message that is still arriving begin.
_ARRIVING_HEAD_BYTES = 4096
# A message that protobuf has to read as a whole: nothing else shows what it holds.
_MOST_UNUSUAL_BYTES = 64 * 1024

_starts = RememberedStarts()


def split_arriving(message: memoryview, filled: int) -> Split | None:
    """Take apart a ModelInferRequest of which only the first `filled` bytes are there.

    None unless these determine the request: all but the data of its one tensor is there, which end
    with the message, and the data are not looked at when it is decoded. `decode_request` takes the
    result; the tensor is then a view of bytes that may not be there yet.
    """
    head = message[: min(filled, _ARRIVING_HEAD_BYTES)]
    found = open_field(head, len(message), _RAW_INPUT_FIELD)
    if found is None:
        return None
    begin, start = found
    before = split(message[:begin], _RAW_INPUT_FIELD, id_field=_REQUEST_ID_FIELD)
    if before is None or before.spans or len(before.rest) > REMEMBERED_HEADER_BYTES:
        return None
    parts = before._replace(spans=[(start, len(message))])
    try:
        header, _ = _quick_header(parts.rest)
    except (InvalidMessage, _NotQuick):
        return None
    return parts if len(header.layouts) == 1 and header.layouts[0].unread else None


def decode_quick(message: bytes | memoryview, parts: Split | None = None) -> InferRequest | None:
    """As `decode_request`, of a message that takes hardly more than its own memory and no time.

    None for any other. `parts`: the result of `split_arriving`, if there is one.
    """
    known = parts or _starts.known(message)
    parts = known or _split(message, _QUICK_FIELDS)
    if parts is None or len(parts.rest) > REMEMBERED_HEADER_BYTES:
        return None
    request_id = ""
    try:
        if known is None or known.id_span is not None:
            request_id = id_of(message, parts, _KIND)
        header, only_views = _quick_header(parts.rest)
        if not only_views and len(message) > _QUICK_COPY_BYTES:
            return None
        if known is None:
            _starts.remember(message, parts)
        return _request(header, request_id, views(message, parts), len(message))
    except _NotQuick:
        return None
    except InvalidMessage as error:
        raise InvalidMessage(str(error), request_id) from None


@dataclass(frozen=True, slots=True)
class Weighed:
    """A message that was weighed: `parts` is None where protobuf has to read it as a whole."""

    message: bytes | memoryview
    weight: Weight
    parts: Split | None


def weigh_request(
    message: bytes | memoryview, most_fields: int = MOST_FIELDS, going_on: GoOn = go_on
) -> Weighed | None:
    """Find out what a ModelInferRequest takes; None: it has more than `most_fields`.

    InvalidMessage if it is over the limits. `going_on` is called every few milliseconds, and may
    raise what ends the work.
    """
    parts = _split(message, most_fields)
    if parts is None and most_fields < MOST_FIELDS:
        return None
    if parts is None:
        if len(message) > _MOST_UNUSUAL_BYTES:
            raise InvalidMessage(
                "malformed ModelInferRequest: it breaks off, has groups, or more than "
                f"{MOST_FIELDS} fields"
            )
        return Weighed(message, Weight(fields=len(message) // 2, text_bytes=len(message)), None)
    try:
        weight = weigh(parts.rest, most_fields, going_on)
    except InvalidMessage as error:
        raise InvalidMessage(str(error), id_of(message, parts, _KIND)) from None
    if weight is None:
        return None
    weight.text_bytes += 0 if parts.id_span is None else parts.id_span[1] - parts.id_span[0]
    weight.add_raw(sum(stop - start for start, stop in parts.spans))
    return Weighed(message, weight, parts)


def decode_request(message: bytes | memoryview) -> InferRequest:
    """Read a ModelInferRequest; InvalidMessage if it is malformed or contradicts itself.

    So it is if it has more than the limits of `weight` allow.
    """
    decoded = decode_quick(message)
    if decoded is not None:
        return decoded
    weighed = weigh_request(message)
    assert weighed is not None
    return decode_weighed(weighed)


def decode_weighed(weighed: Weighed, going_on: GoOn = go_on) -> InferRequest:
    """As `decode_request`, after `weigh_request`."""
    message, parts = weighed.message, weighed.parts
    if parts is None:
        whole = parse(_KIND, message)
        raw, request_id = [memoryview(entry) for entry in whole.raw_input_contents], whole.id
    else:
        whole = None
        raw, request_id = views(message, parts), id_of(message, parts, _KIND)
    try:
        header = request_header(whole) if parts is None else read_header(_KIND, parts.rest)
        return _request(header, request_id, raw, len(message), going_on)
    except InvalidMessage as error:
        raise InvalidMessage(str(error), request_id) from None


def _split(message: bytes | memoryview, most_fields: int) -> Split | None:
    return split(message, _RAW_INPUT_FIELD, id_field=_REQUEST_ID_FIELD, most_fields=most_fields)


def _request(
    header: Header,
    request_id: str,
    raw: list[memoryview],
    byte_size: int,
    going_on: GoOn = go_on,
) -> InferRequest:
    return InferRequest(
        model_name=header.model_name,
        model_version=header.model_version,
        id=request_id,
        parameters=dict(header.parameters),
        inputs=read_tensors("input", header.layouts, raw, going_on),
        outputs=header.requested,
        byte_size=byte_size,
    )


def request_id_of(head: bytes) -> str:
    """The id of a request of which only the start is there; empty where it does not show."""
    found = first(head, _REQUEST_ID_FIELD)
    return "" if found is None else found.decode(errors="replace")


class _NotQuick(Exception):
    """A header has many fields, or tensors of which more is made than views; it is not kept."""


# Clients repeat their messages but for id and data.
@lru_cache(maxsize=REMEMBERED_HEADERS)
def _quick_header(rest: bytes) -> tuple[Header, bool]:
    """The header of a ModelInferRequest, and whether its raw contents are not copied.

    InvalidMessage, _NotQuick.
    """
    weight = weigh(rest, _QUICK_FIELDS)
    if weight is None or weight.numbers + weight.bytes_elements > _QUICK_ELEMENTS:
        raise _NotQuick
    return read_header(_KIND, rest), not (weight.raw_elements or weight.raw_copied)
