"""Convert tensors between the wire and numpy arrays, without copying their bytes.

Arrays that were read are read-only views into what was received, which they keep alive; they may be
unaligned.
"""

import itertools
import math
import struct
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protos.datatypes import BYTES, DTYPES, datatype_of
from protos.errors import InvalidMessage
from protos.weight import GoOn, go_on
from protos.wire import read_numbers

Parameter = bool | int | float | str

_MOST_DIMENSIONS = 64  # numpy's own limit
_MOST_ELEMENT_BYTES = 2**32 - 1  # of a length of 4 bytes
# Elements that are read between two calls of `going_on`: a few milliseconds.
_STEP_ELEMENTS = 8192
_LENGTH = struct.Struct("<I")

_CONTENTS = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    BYTES: "bytes_contents",
}


@dataclass(slots=True)
class Tensor:
    """A named tensor of a message; `data` is None if it lies in shared memory."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: NDArray[Any] | None
    parameters: Mapping[str, Parameter] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, data: NDArray[Any]) -> "Tensor":
        """Tensor of a numpy array; TypeError if the protocol has no such dtype."""
        return cls(name, datatype_of(data.dtype), data.shape, data)


def read_parameters(parameters: Any) -> Mapping[str, Parameter]:
    """Values of a map of InferParameter by name; InvalidMessage for one without a value."""
    if not parameters:
        return {}
    read: dict[str, Parameter] = {}
    for name, value in parameters.items():
        choice = value.WhichOneof("parameter_choice")
        if choice is None:
            raise InvalidMessage(f"parameter {name!r} carries no value")
        read[name] = getattr(value, choice)
    return read


def write_parameters(target: Any, parameters: Mapping[str, Parameter]) -> None:
    """Set values in a map of InferParameter."""
    for name, value in parameters.items():
        entry = target[name]
        if isinstance(value, bool):
            entry.bool_param = value
        elif isinstance(value, int):
            entry.int64_param = value
        elif isinstance(value, float):
            entry.double_param = value
        else:
            entry.string_param = value


@dataclass(frozen=True, slots=True)
class Layout:
    """What the header of a tensor says about it, checked; its data may come beside the header.

    `byte_size`: of raw contents, for data of a fixed size. `header`: the message itself if it has
    typed contents, else None.
    """

    what: str
    name: str
    datatype: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    parameters: Mapping[str, Parameter]
    byte_size: int
    shared: bool
    header: Any

    @classmethod
    def of(cls, role: str, header: Any) -> "Layout":
        """The layout in the header of an "input" or an "output"; InvalidMessage if it has none."""
        what = f"{role} {header.name!r}"
        shape = tuple(header.shape)
        dtype = DTYPES.get(header.datatype)
        if dtype is None:
            raise InvalidMessage(
                f"{what} has datatype {header.datatype!r}, expected one of {', '.join(DTYPES)}"
            )
        if len(shape) > _MOST_DIMENSIONS:
            raise InvalidMessage(
                f"{what} has {len(shape)} dimensions, expected at most {_MOST_DIMENSIONS}"
            )
        if any(size < 0 for size in shape):
            raise InvalidMessage(f"{what} has shape {list(shape)}, expected no negative dimension")
        # Numpy counts the bytes even where a dimension of 0 leaves none.
        if math.prod(size or 1 for size in shape) * dtype.itemsize > sys.maxsize:
            raise InvalidMessage(f"{what} has shape {list(shape)}, which is too large")
        return cls(
            what=what,
            name=header.name,
            datatype=header.datatype,
            dtype=dtype,
            shape=shape,
            parameters=read_parameters(header.parameters),
            byte_size=math.prod(shape) * dtype.itemsize,
            shared="shared_memory_region" in header.parameters,
            header=header if header.HasField("contents") else None,
        )

    @property
    def unread(self) -> bool:
        """Whether raw contents become an array without a look at them."""
        return self.datatype not in (BYTES, "BOOL")

    def tensor(self, raw: memoryview | None, going_on: GoOn = go_on) -> Tensor:
        """The tensor with its raw contents, None if there are none beside the header.

        `going_on` is called every few milliseconds, and may raise what ends the work.
        """
        what, typed = self.what, self.header is not None
        # A copy: other messages with the same header share the layout.
        parameters = dict(self.parameters)
        if self.shared:
            if typed or raw:
                raise InvalidMessage(f"{what} lies in shared memory, expected no contents")
            return Tensor(self.name, self.datatype, self.shape, None, parameters)
        if raw is None:
            data = self._typed_contents(going_on)
        elif typed:
            raise InvalidMessage(f"{what} has typed and raw contents, expected one of them")
        elif self.datatype == BYTES:
            data = decode_elements(what, raw, self.shape, going_on)
        else:
            if raw.nbytes != self.byte_size:
                raise InvalidMessage(
                    f"{what} has {raw.nbytes} bytes; "
                    f"{self.datatype} of shape {list(self.shape)} takes {self.byte_size}"
                )
            data = np.frombuffer(raw, self.dtype)
            if self.datatype == "BOOL":
                # The message may have any byte; numpy and ONNX Runtime require 0 or 1 for a bool.
                data = data.view(np.uint8) != 0
        return Tensor(self.name, self.datatype, self.shape, data.reshape(self.shape), parameters)

    def _typed_contents(self, going_on: GoOn) -> NDArray[Any]:
        what, elements = self.what, math.prod(self.shape)
        attribute = _CONTENTS.get(self.datatype)
        if attribute is None:
            raise InvalidMessage(f"{what} is {self.datatype}, expected raw contents")
        contents = self.header.contents if self.header is not None else None
        for descriptor, values in contents.ListFields() if contents is not None else ():
            if descriptor.name != attribute and len(values):
                raise InvalidMessage(
                    f"{what} is {self.datatype} but carries {descriptor.name}, expected {attribute}"
                )
        values = getattr(contents, attribute) if contents is not None else ()
        if len(values) != elements:
            raise InvalidMessage(
                f"{what} has {len(values)} elements; shape {list(self.shape)} takes {elements}"
            )
        dtype = np.dtype(np.object_) if self.datatype == BYTES else self.dtype
        data: NDArray[Any] = np.empty(elements, dtype)
        try:
            if elements > _STEP_ELEMENTS and self.datatype != BYTES:
                read_numbers(contents, attribute, data, going_on)
                return data
            for start in range(0, elements, _STEP_ELEMENTS):
                if start:
                    going_on()
                step = slice(start, start + _STEP_ELEMENTS)
                # From a list, because from protobuf 7 on numpy reads the field's own buffer, and
                # values that do not fit the narrower datatype wrap around silently.
                data[step] = np.array(list(values[step]), dtype)
        except OverflowError:
            raise InvalidMessage(f"{what} has elements that {self.datatype} cannot hold") from None
        return data


def read_tensors(
    role: str, layouts: Sequence[Layout], raw: list[memoryview], going_on: GoOn = go_on
) -> tuple[Tensor, ...]:
    """Tensors of a message from the layouts in its header and the raw contents beside it.

    `role` is "input" or "output"; `going_on` as in `Layout.tensor`. InvalidMessage if layouts and
    contents contradict each other.
    """
    # For an output in shared memory the sender may put an empty entry in its place.
    keeps_place = role == "output" and len(raw) == len(layouts)
    expected = len(layouts)
    if not keeps_place:
        expected -= sum([layout.shared for layout in layouts])
    if raw and len(raw) != expected:
        raise InvalidMessage(
            f"got {len(raw)} raw contents for {expected} {role}s, expected one each"
        )
    supply = iter(raw)
    return tuple(
        [
            layout.tensor(
                next(supply) if raw and (keeps_place or not layout.shared) else None, going_on
            )
            for layout in layouts
        ]
    )


def decode_elements(
    what: str, raw: memoryview, shape: tuple[int, ...], going_on: GoOn = go_on
) -> NDArray[Any]:
    """BYTES elements, each a 4-byte little-endian length before as many bytes, as Python bytes.

    `going_on` is called every few milliseconds, and may raise what ends the work. InvalidMessage,
    which names `what`, if they do not fit the shape or the bytes.
    """
    expected = math.prod(shape)
    elements: list[bytes] = []
    data, read_length = raw.tobytes(), _LENGTH.unpack_from
    at, end = 0, raw.nbytes
    try:
        while at < end:
            start = at + 4
            at = start + read_length(data, at)[0]
            elements.append(data[start:at])
            if not len(elements) % _STEP_ELEMENTS:
                going_on()
                if len(elements) > expected:
                    break
    except struct.error:
        at = end + 1
    if at > end:
        raise InvalidMessage(f"{what} has an element that exceeds its {end} bytes")
    if len(elements) != expected:
        more = " or more" if at < end else ""
        raise InvalidMessage(
            f"{what} has {len(elements)}{more} elements; its shape takes {expected}"
        )
    return _objects(elements).reshape(shape)


def _objects(elements: Sequence[bytes]) -> NDArray[Any]:
    # np.array would make a fixed-width string array of them.
    data = np.empty(len(elements), np.object_)
    data[:] = elements
    return data


def write_header(
    target: Any, name: str, datatype: str, shape: Sequence[int], parameters: Mapping[str, Parameter]
) -> None:
    """Add the header of a tensor to `target`."""
    entry = target.add(name=name, datatype=datatype, shape=shape)
    write_parameters(entry.parameters, parameters)


def write_data(role: str, tensors: Iterable[Tensor]) -> list[memoryview]:
    """The raw contents of a message with these tensors.

    `role` is "input" or "output"; an output in shared memory keeps its place among the raw
    contents with an empty entry. InvalidMessage as `encode_data` says.
    """
    payloads: list[memoryview] = []
    for tensor in tensors:
        if tensor.data is not None:
            what = f"{role} {tensor.name!r}"
            payloads.append(encode_data(tensor.datatype, tensor.data, what))
        elif role == "output":
            payloads.append(memoryview(b""))
    return payloads


def encode_data(datatype: str, data: NDArray[Any], what: str = "the tensor") -> memoryview:
    """Bytes of a tensor on the wire: a view if the array has that layout already.

    InvalidMessage, which names `what` and the element, for BYTES with an element that is neither
    text (`str`, sent as UTF-8) nor bytes.
    """
    if datatype == BYTES:
        elements = [
            element_bytes(value, what, data, at) for at, value in enumerate(data.reshape(-1))
        ]
        lengths = (len(element).to_bytes(4, "little") for element in elements)
        pairs = zip(lengths, elements, strict=True)
        return memoryview(b"".join(itertools.chain.from_iterable(pairs)))
    little_endian = np.ascontiguousarray(data, DTYPES[datatype])
    return little_endian.reshape(-1).view(np.uint8).data


def element_bytes(value: Any, what: str, data: NDArray[Any], at: int) -> bytes:
    """One element of BYTES on the wire, without its length: `value`, number `at` of `data`.

    InvalidMessage, which names `what` and the index, if it is neither text nor bytes.
    """
    if isinstance(value, str):
        try:
            encoded = value.encode()
        except UnicodeEncodeError as error:
            reason = f"is text that UTF-8 cannot carry: {error.reason}"
            raise InvalidMessage(f"{_element(what, data, at)} {reason}") from None
    elif isinstance(value, bytes | bytearray | memoryview):
        encoded = bytes(value)
    else:
        raise InvalidMessage(
            f"{_element(what, data, at)} is {value!r:.60} of type {type(value).__name__}; "
            "expected str or bytes"
        )
    if len(encoded) > _MOST_ELEMENT_BYTES:
        raise InvalidMessage(
            f"{_element(what, data, at)} has {len(encoded)} bytes; the protocol carries at most "
            f"{_MOST_ELEMENT_BYTES}"
        )
    return encoded


def _element(what: str, data: NDArray[Any], at: int) -> str:
    return f"{what}: element {index_of(at, data.shape)}"


def index_of(at: int, shape: Sequence[int]) -> list[int]:
    """Index of element number `at`, in C order; numpy's own takes fewer dimensions than arrays."""
    index = []
    for size in reversed(shape):
        at, place = divmod(at, size)
        index.append(place)
    return index[::-1]
