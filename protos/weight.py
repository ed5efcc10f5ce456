"""What decoding an inference request takes, found out before anything of it is made.

Two bytes of a message can become an object of several hundred: an empty tensor, parameter or text.
So the message is walked over first, as far as it consists of such parts, and counted; its tensors'
raw contents are left where they are. What is over the limits is refused here.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from google.protobuf.descriptor import Descriptor

from protos import inference_pb2 as pb
from protos.errors import InvalidMessage
from protos.wire import fields

MOST_FIELDS = 64 * 1024
# Typed or raw, of all tensors of BYTES.
MOST_BYTES_ELEMENTS = 2**18
# Between two calls of `going_on`: some milliseconds.
_STEP_FIELDS = 4096
# What protobuf and Python make of each, measured and rounded up: a field, which may be a tensor; a
# byte of text, of ASCII alone or not; an element of BYTES, as bytes and as text; a number, as
# protobuf has it and as numpy.
_FIELD_BYTES = 512
_ASCII_FACTOR, _TEXT_FACTOR = 3, 6
BYTES_ELEMENT_BYTES = 320
_NUMBER_BYTES = 16

_REQUEST = pb.ModelInferRequest
_INPUT = _REQUEST.InferInputTensor
_OUTPUT = _REQUEST.InferRequestedOutputTensor
_CONTENTS = pb.InferTensorContents
_LEN = 2
_ELEMENT_TAG = _CONTENTS.BYTES_CONTENTS_FIELD_NUMBER << 3 | _LEN

# What long work on a message calls every few milliseconds. It may raise what ends the work, and may
# let other threads run.
GoOn = Callable[[], None]


def go_on() -> None:
    """Work without a pause."""


@dataclass(slots=True)
class Weight:
    """What a request has, beside raw contents that become arrays where they lie.

    `text_bytes`: memory for names, parameters, and what nobody knows. `numbers`: typed ones.
    """

    fields: int = 0
    text_bytes: int = 0
    numbers: int = 0
    bytes_elements: int = 0
    element_bytes: int = 0
    # Of raw contents, as shapes have it; and whether others are copied.
    raw_elements: int = 0
    raw_copied: bool = False

    @property
    def transient_bytes(self) -> int:
        """Memory that decoding takes and gives back."""
        return _FIELD_BYTES * self.fields + self.text_bytes

    @property
    def held_bytes(self) -> int:
        """Memory of the tensors beside the message."""
        return (
            _NUMBER_BYTES * self.numbers
            + BYTES_ELEMENT_BYTES * self.bytes_elements
            + 4 * self.element_bytes
        )

    def add_raw(self, raw_bytes: int) -> None:
        """Count raw contents of so many bytes, of all tensors, where more is made of them."""
        if self.raw_elements:
            # An element has 4 bytes or more, whatever the shape says.
            self.bytes_elements += min(self.raw_elements, raw_bytes // 4 + 1)
            self.element_bytes += raw_bytes
        elif self.raw_copied:
            self.element_bytes += raw_bytes // 4

    def check(self) -> None:
        """InvalidMessage over the limits."""
        if self.fields > MOST_FIELDS:
            raise InvalidMessage(f"the message has more than {MOST_FIELDS} fields, the limit")
        if self.bytes_elements + self.raw_elements > MOST_BYTES_ELEMENTS:
            raise InvalidMessage(
                f"the message has more than {MOST_BYTES_ELEMENTS} elements of BYTES, the limit"
            )


class _Walk:
    """Counts what a message has."""

    def __init__(self, most_fields: int, going_on: GoOn) -> None:
        self.weight = Weight()
        self._most_fields = most_fields
        self._going_on = going_on
        self._next_fields = _STEP_FIELDS

    def request(self, message: memoryview) -> bool:
        """Count a ModelInferRequest; False: it has more than `most_fields`."""
        of_field = {
            _REQUEST.PARAMETERS_FIELD_NUMBER: self._parameter,
            _REQUEST.INPUTS_FIELD_NUMBER: self._input,
            _REQUEST.OUTPUTS_FIELD_NUMBER: self._output,
        }
        return self._walk(message, of_field)

    def _walk(
        self, message: memoryview, of_field: Mapping[int, Callable[[memoryview], bool]]
    ) -> bool:
        weight = self.weight
        end = 0
        for tag, _, payload, end in fields(message):
            if not self._one_more():
                return False
            # An empty one has nothing to count, and there may be as many as fields.
            if tag & 7 != _LEN or payload == end:
                continue
            inner = message[payload:end]
            found = of_field.get(tag >> 3)
            if found is None:
                weight.text_bytes += _text_bytes(inner)
            elif not found(inner):
                return False
        return self._rest(message, end)

    def _one_more(self) -> bool:
        """Count a field; False: it is one too many."""
        weight = self.weight
        weight.fields += 1
        if weight.fields >= self._next_fields:
            self._step()
        return weight.fields <= self._most_fields

    def _rest(self, message: memoryview, end: int) -> bool:
        """Count what is behind `end`, which is unusual: as many fields as there may be."""
        weight = self.weight
        weight.fields += max(0, len(message) - end + 1) // 2
        return weight.fields <= self._most_fields

    def _step(self) -> None:
        self._next_fields += _STEP_FIELDS
        self.weight.check()
        self._going_on()

    def _parameter(self, message: memoryview) -> bool:
        return self._walk(message, {2: self._value})

    def _value(self, message: memoryview) -> bool:
        return self._walk(message, {})

    def _output(self, message: memoryview) -> bool:
        return self._walk(message, {_OUTPUT.PARAMETERS_FIELD_NUMBER: self._parameter})

    def _input(self, message: memoryview) -> bool:
        shape: list[int] = []
        datatype = b""
        weight = self.weight

        def read_shape(packed: memoryview) -> bool:
            weight.fields += _varints(packed)
            if len(shape) + len(packed) <= 1024:
                shape.extend(_values(packed))
            return weight.fields <= self._most_fields

        def read_datatype(text: memoryview) -> bool:
            nonlocal datatype
            weight.text_bytes += len(text)
            datatype = bytes(text[:8])
            return True

        of_field = {
            _INPUT.DATATYPE_FIELD_NUMBER: read_datatype,
            _INPUT.SHAPE_FIELD_NUMBER: read_shape,
            _INPUT.PARAMETERS_FIELD_NUMBER: self._parameter,
            _INPUT.CONTENTS_FIELD_NUMBER: self._contents,
        }
        before = weight.bytes_elements
        if not self._walk(message, of_field):
            return False
        # Shapes that are not packed count for nothing here: no client writes them so.
        elements = math.prod(shape)
        raw = weight.bytes_elements == before
        # The decoder refuses dimensions whose product is no size.
        if datatype == b"BYTES" and raw and 0 < elements < 2**60:
            weight.raw_elements += elements
            weight.check()
        elif datatype == b"BOOL":
            weight.raw_copied = True
        return True

    def _contents(self, message: memoryview) -> bool:
        weight = self.weight
        at, stop = 0, len(message)
        while at < stop:
            # A short element of BYTES: there may be a million of them.
            if message[at] == _ELEMENT_TAG and at + 1 < stop and (size := message[at + 1]) < 0x80:
                at += 2 + size
                if not self._element(size):
                    return False
                continue
            before = at
            for tag, _, payload, end in fields(message[before:]):
                inner = message[before + payload : before + end]
                at = before + end
                if tag == _ELEMENT_TAG:
                    if not self._element(len(inner)):
                        return False
                else:
                    if tag & 7 == _LEN:
                        weight.numbers += _NUMBERS.get(tag >> 3, len)(inner)
                    if not self._one_more():
                        return False
                if at < stop and message[at] == _ELEMENT_TAG:
                    break
            if at == before:
                return self._rest(message, at)
        return True

    def _element(self, size: int) -> bool:
        """Count an element of BYTES; False: it is one too many."""
        weight = self.weight
        weight.bytes_elements += 1
        weight.element_bytes += size
        if weight.bytes_elements % _STEP_FIELDS:
            return True
        weight.check()
        self._going_on()
        return weight.bytes_elements <= self._most_fields or self._most_fields == MOST_FIELDS


def weigh(
    message: bytes | memoryview, most_fields: int = MOST_FIELDS, going_on: GoOn = go_on
) -> Weight | None:
    """Weigh a ModelInferRequest without its raw contents; None: it has more than `most_fields`.

    InvalidMessage over the limits. `going_on` is called every few milliseconds and may raise.
    """
    walk = _Walk(min(most_fields, MOST_FIELDS), going_on)
    whole = walk.request(memoryview(message))
    if not whole and walk.weight.fields <= MOST_FIELDS and most_fields < MOST_FIELDS:
        return None
    if not whole:
        walk.weight.fields = max(walk.weight.fields, MOST_FIELDS + 1)
    walk.weight.check()
    return walk.weight


def _text_bytes(text: memoryview) -> int:
    ascii_only = len(text) < 64 or not np.any(np.frombuffer(text, np.uint8) & 0x80)
    return len(text) * (_ASCII_FACTOR if ascii_only else _TEXT_FACTOR)


def _varints(packed: memoryview) -> int:
    """How many varints there are: each ends with a byte below 128."""
    return int(np.count_nonzero(np.frombuffer(packed, np.uint8) < 128)) if len(packed) else 0


def _values(packed: memoryview) -> list[int]:
    """The non-negative numbers of packed varints, as far as they are whole."""
    values, value, shift = [], 0, 0
    for byte in packed:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            values.append(value)
            value = shift = 0
    return values


_NUMBERS: dict[int, Callable[[memoryview], int]] = {
    _CONTENTS.BOOL_CONTENTS_FIELD_NUMBER: _varints,
    _CONTENTS.INT_CONTENTS_FIELD_NUMBER: _varints,
    _CONTENTS.INT64_CONTENTS_FIELD_NUMBER: _varints,
    _CONTENTS.UINT_CONTENTS_FIELD_NUMBER: _varints,
    _CONTENTS.UINT64_CONTENTS_FIELD_NUMBER: _varints,
    _CONTENTS.FP32_CONTENTS_FIELD_NUMBER: lambda packed: len(packed) // 4,
    _CONTENTS.FP64_CONTENTS_FIELD_NUMBER: lambda packed: len(packed) // 8,
}


# Of messages of any kind.


def check_fields(kind: Descriptor, message: bytes, most: int) -> None:
    """InvalidMessage if a message of a kind has more than `most` fields, with those in them."""
    if _left(kind, memoryview(message), most) < 0:
        raise InvalidMessage(f"the message has more than {most} fields, the limit")


def _left(kind: Descriptor, message: memoryview, most: int) -> int:
    """How many of `most` fields are left beside those of a message; negative if it has more."""
    left, end = most, 0
    for tag, _, payload, end in fields(message):
        left -= 1
        known = kind.fields_by_number.get(tag >> 3)
        if left >= 0 and tag & 7 == _LEN and known is not None and known.message_type is not None:
            left = _left(known.message_type, message[payload:end], left)
        if left < 0:
            return left
    # What is behind is unusual: it may be as many fields.
    return left - max(0, len(message) - end + 1) // 2
