"""Find fields of a protobuf message without copying their payloads, and read packed numbers.

Protobuf's Python runtime copies every bytes field, both when parsing and when reading it. A message
with a tensor is a few small fields around one large one, so we walk the top level by hand
(https://protobuf.dev/programming-guides/encoding/), pass the small rest to protobuf, and leave the
large field in place.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_VARINT, _FIXED64, _LEN, _FIXED32 = 0, 1, 2, 5
_MAX_LENGTH = 2**31 - 1  # protobuf allows no longer field
# An eighth of a MiB at most.
_REMEMBERED_STARTS = 256
_REMEMBERED_START_BYTES = 256
# What is read between two calls of `going_on`: about a millisecond.
_STEP_NUMBER_BYTES = 64 * 1024
_FIXED: Mapping[str, np.dtype[Any]] = {
    "fp32_contents": np.dtype("<f4"),
    "fp64_contents": np.dtype("<f8"),
}


class Split(NamedTuple):
    """A message taken apart: `rest` is a valid message.

    `spans` are (start, stop) of each occurrence of the field, `id_span` of the id.
    """

    rest: bytes
    spans: list[tuple[int, int]]
    id_span: tuple[int, int] | None = None


def _varint(message: bytes | memoryview, at: int, stop: int, longest: int) -> tuple[int, int]:
    """Value of the varint at `at`, and its end; ValueError if it exceeds its bounds."""
    value = shift = 0
    for position in range(at, min(stop, at + longest)):
        byte = message[position]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position + 1
        shift += 7
    raise ValueError("varint exceeds its bounds")


def split(
    message: bytes | memoryview,
    field: int,
    start: int = 0,
    stop: int | None = None,
    *,
    id_field: int = 0,
    most_fields: int = 2**31,
) -> Split | None:
    """Separate every occurrence of the length-delimited `field` from the rest of the message.

    `id_field`, another one, is taken out too: without it the rest of similar messages is equal.
    Reads `message[start:stop]`, top level only. Returns None for anything unusual (truncation,
    groups, over-long varints, two ids), which protobuf's own parser must handle, and for more than
    `most_fields`.
    """
    end = len(message) if stop is None else stop
    spans: list[tuple[int, int]] = []
    id_spans: list[tuple[int, int]] = []
    taken = {field << 3 | _LEN: spans, id_field << 3 | _LEN: id_spans}
    rest: list[bytes | memoryview] = []
    at = kept = start
    left = most_fields
    try:
        while at < end and left:
            begin = at
            left -= 1
            # Most varints have one byte, and a call for each of them would take most of the time.
            tag = message[at]
            at += 1
            if tag >= 0x80:
                tag, at = _varint(message, begin, end, 5)
            wire_type = tag & 7
            if tag < 8 or tag > 0xFFFFFFFF:
                return None
            if wire_type == _LEN:
                length = message[at] if at < end else 0x80
                if length < 0x80:
                    at += 1
                else:
                    length, at = _varint(message, at, end, 5)
                payload, at = at, at + length
                if length > _MAX_LENGTH or at > end:
                    return None
                found = taken.get(tag)
                if found is not None:
                    rest.append(message[kept:begin])
                    kept = at
                    found.append((payload, at))
            elif wire_type == _VARINT:
                _, at = _varint(message, at, end, 10)
            elif wire_type in (_FIXED64, _FIXED32):
                at += 8 if wire_type == _FIXED64 else 4
            else:
                return None
    except ValueError:
        return None
    rest.append(message[kept:end])
    # Of two ids the last one counts, but protobuf looks at each.
    unusual = len(id_spans) > 1 or at != end
    return None if unusual else Split(b"".join(rest), spans, id_spans[0] if id_spans else None)


class RememberedStarts:
    """Remembers how messages were split that are equal but for their data.

    That are messages with one large field, at their end, and without an id. What is before the data
    and the length of the message decide then where it is split. Any thread may call.
    """

    def __init__(self) -> None:
        # By the length of a message, where the data began in the last one.
        self._starts: dict[int, int] = {}
        self._splits: dict[tuple[int, bytes], Split] = {}

    def known(self, message: bytes | memoryview) -> Split | None:
        """The result of `split`, if it was remembered."""
        length = len(message)
        start = self._starts.get(length)
        return None if start is None else self._splits.get((length, bytes(message[:start])))

    def remember(self, message: bytes | memoryview, parts: Split) -> None:
        """Remember the result of `split` of the whole of `message`, if it can be."""
        length = len(message)
        if parts.id_span is not None or len(parts.spans) != 1:
            return
        start, stop = parts.spans[0]
        if stop != length or start > _REMEMBERED_START_BYTES:
            return
        if len(self._splits) >= _REMEMBERED_STARTS or len(self._starts) >= _REMEMBERED_STARTS:
            self._splits.clear()
            self._starts.clear()
        self._starts[length] = start
        self._splits[length, bytes(message[:start])] = parts


def first(head: bytes, field: int) -> bytes | None:
    """The first occurrence of a length-delimited field; None where it is not all in `head`.

    `head` is the start of a message, which may be cut off anywhere.
    """
    for tag, _, payload, end in fields(head):
        if tag == field << 3 | _LEN:
            return head[payload:end] if end <= len(head) else None
    return None


def open_field(head: memoryview, length: int, field: int) -> tuple[int, int] | None:
    """Where the last field of a message begins, and where its payload does.

    Only the start of the message is there, `head`, of its `length` bytes. None unless it shows that
    the last field is `field`, length-delimited, and that its payload ends with the message.
    """
    for tag, begin, payload, end in fields(head):
        if end >= len(head):
            last = tag == field << 3 | _LEN and end == length and end - payload <= _MAX_LENGTH
            return (begin, payload) if last else None
    return None


def fields(head: bytes | memoryview) -> Iterator[tuple[int, int, int, int]]:
    """Tag, begin, begin of the payload, and end of each field whose tag and length are in `head`.

    `head` is the start of a message, which may be cut off anywhere; ends at anything unusual.
    """
    at, stop = 0, len(head)
    while at < stop:
        begin = at
        try:
            # Most varints have one byte, and a call for each of them would take most of the time.
            tag = head[at]
            at += 1
            if tag >= 0x80:
                tag, at = _varint(head, begin, stop, 5)
            payload = at
            wire_type = tag & 7
            if wire_type == _LEN:
                size = head[at] if at < stop else 0x80
                if size < 0x80:
                    payload = at + 1
                else:
                    size, payload = _varint(head, at, stop, 5)
                at = payload + size
            elif wire_type == _VARINT:
                _, at = _varint(head, at, stop, 10)
            elif wire_type in (_FIXED64, _FIXED32):
                at += 8 if wire_type == _FIXED64 else 4
            else:
                return
        except ValueError:
            return
        yield tag, begin, payload, at


def encode_varint(value: int) -> bytes:
    """Shortest varint of a non-negative value."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


@lru_cache(maxsize=256)
def length_prefix(field: int, length: int) -> bytes:
    """Tag and length that go before the payload of a length-delimited field."""
    return encode_varint(field << 3 | _LEN) + encode_varint(length)


def read_numbers(
    contents: Any, attribute: str, data: NDArray[Any], going_on: Callable[[], None]
) -> None:
    """Fill `data` with the numbers of a field of InferTensorContents, as many and one at least.

    Protobuf hands them out as a list, which takes a hundred nanoseconds a number: a second for
    10 MiB of small ones. Its encoding takes a tenth of that, and numpy reads it.

    No other field may be set. `going_on` is called every few milliseconds, and may raise what ends
    the work. OverflowError for a number that the dtype of `data` cannot hold.
    """
    contents.DiscardUnknownFields()
    encoded = memoryview(contents.SerializeToString())
    ((_, _, payload, end),) = fields(encoded)
    packed = encoded[payload:end]
    fixed = _FIXED.get(attribute)
    if fixed is not None:
        data[:] = np.frombuffer(packed, fixed)
        return
    start = 0
    for numbers in _packed_varints(np.frombuffer(packed, np.uint8)):
        if start:
            going_on()
        stop = start + len(numbers)
        data[start:stop] = _checked(numbers, data.dtype)
        start = stop


def _packed_varints(packed: NDArray[np.uint8]) -> Iterator[NDArray[Any]]:
    """The numbers of packed varints, unsigned, some at a time."""
    at = 0
    while at < len(packed):
        step = packed[at : at + _STEP_NUMBER_BYTES]
        ends = np.flatnonzero(step < 0x80)
        step = step[: ends[-1] + 1]
        at += len(step)
        if len(ends) == len(step):
            yield step
            continue
        starts = np.concatenate(([0], ends[:-1] + 1))
        places = np.arange(len(step)) - np.repeat(starts, ends + 1 - starts)
        shifted = (step & 0x7F).astype(np.uint64) << (7 * places).astype(np.uint64)
        yield np.bitwise_or.reduceat(shifted, starts)


def _checked(numbers: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """The values of integers of `dtype`, or of booleans, of numbers as the wire has them."""
    if dtype.kind == "b":
        set_ones: NDArray[Any] = numbers != 0
        return set_ones
    if dtype.kind == "i":
        # Negative ones are written as 64 bits.
        numbers = numbers.astype(np.uint64).view(np.int64)
    limits = np.iinfo(dtype)
    if int(numbers.max()) > limits.max or int(numbers.min()) < limits.min:
        raise OverflowError
    return numbers
