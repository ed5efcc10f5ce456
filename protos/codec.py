"""Turn inference messages into numpy arrays, without copying the tensors' bytes.

Decoded tensors are read-only views into the received message, which they keep alive; they may be
unaligned when the sender did not pad. Encoding copies each tensor once, into the message.
"""

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from protos import inference_pb2 as pb
from protos.datatypes import BYTES, DTYPES, datatype_of
from protos.wire import Split, length_prefix, split

Array = np.ndarray[Any, np.dtype[Any]]
Parameter = bool | int | float | str

_RAW_INPUT_FIELD = pb.ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER
_RAW_OUTPUT_FIELD = pb.ModelInferResponse.RAW_OUTPUT_CONTENTS_FIELD_NUMBER
_INFER_RESPONSE_FIELD = pb.ModelStreamInferResponse.INFER_RESPONSE_FIELD_NUMBER

# Receivers skip fields they do not know, so an unused one is where padding goes.
_PADDING_FIELD = 15
_ALIGNMENT = 16
_WORTH_ALIGNING_BYTES = 4096

_MOST_DIMENSIONS = 64  # numpy's own limit

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


class InvalidMessage(ValueError):
    """A message that breaks the protocol; the text says what came and what was wanted.

    `request_id` is the id that the message carried, as far as it could be read.
    """

    def __init__(self, text: str, request_id: str = "") -> None:
        super().__init__(text)
        self.request_id = request_id


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named tensor as it travels; `data` is None when it lies in shared memory."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Array | None
    parameters: Mapping[str, Parameter] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, data: Array) -> "Tensor":
        """Tensor of a numpy array; TypeError when the protocol has no such dtype."""
        return cls(name, datatype_of(data.dtype), data.shape, data)


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """An output that the client asks for by name."""

    name: str
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class InferRequest:
    """What one ModelInferRequest says; no outputs named means all of them."""

    model_name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[RequestedOutput, ...] = ()
    model_version: str = ""
    id: str = ""
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    byte_size: int = 0


@dataclass(frozen=True, slots=True)
class InferResponse:
    """What one ModelInferResponse says."""

    model_name: str
    outputs: tuple[Tensor, ...]
    model_version: str = ""
    id: str = ""
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


def decode_request(message: bytes) -> InferRequest:
    """Read a ModelInferRequest; InvalidMessage when it is malformed or contradicts itself."""
    header, raw = _take_apart(message, pb.ModelInferRequest, _RAW_INPUT_FIELD)
    try:
        return InferRequest(
            model_name=header.model_name,
            model_version=header.model_version,
            id=header.id,
            parameters=_read_parameters(header.parameters),
            inputs=_read_tensors("input", header.inputs, raw),
            outputs=tuple(
                RequestedOutput(output.name, _read_parameters(output.parameters))
                for output in header.outputs
            ),
            byte_size=len(message),
        )
    except InvalidMessage as error:
        raise InvalidMessage(str(error), header.id) from None


def encode_request(request: InferRequest) -> bytes:
    """Write a ModelInferRequest with raw contents."""
    header = pb.ModelInferRequest(
        model_name=request.model_name, model_version=request.model_version, id=request.id
    )
    _write_parameters(header.parameters, request.parameters)
    for output in request.outputs:
        _write_parameters(header.outputs.add(name=output.name).parameters, output.parameters)
    payloads = _write_tensors(header.inputs, request.inputs, keep_place=False)
    return _put_together(header.SerializeToString(), _RAW_INPUT_FIELD, payloads)


def decode_response(message: bytes) -> InferResponse:
    """Read a ModelInferResponse; InvalidMessage when it is malformed or contradicts itself."""
    return _read_response(*_take_apart(message, pb.ModelInferResponse, _RAW_OUTPUT_FIELD))


def encode_response(response: InferResponse) -> bytes:
    """Write a ModelInferResponse with raw contents."""
    header = pb.ModelInferResponse(
        model_name=response.model_name, model_version=response.model_version, id=response.id
    )
    _write_parameters(header.parameters, response.parameters)
    # An output in shared memory keeps its place among the raw contents with an empty entry.
    payloads = _write_tensors(header.outputs, response.outputs, keep_place=True)
    return _put_together(header.SerializeToString(), _RAW_OUTPUT_FIELD, payloads)


def decode_stream_response(message: bytes) -> tuple[str, InferResponse]:
    """Read a ModelStreamInferResponse as (error message or "", response)."""
    outer = split(message, _INFER_RESPONSE_FIELD)
    if outer is not None and len(outer.spans) == 1:
        start, stop = outer.spans[0]
        inner = split(message, _RAW_OUTPUT_FIELD, start, stop)
        if inner is not None:
            envelope = _parse(pb.ModelStreamInferResponse, outer.rest)
            header = _parse(pb.ModelInferResponse, inner.rest)
            return envelope.error_message, _read_response(header, _views(message, inner))
    whole = _parse(pb.ModelStreamInferResponse, message)
    raw = [memoryview(entry) for entry in whole.infer_response.raw_output_contents]
    return whole.error_message, _read_response(whole.infer_response, raw)


def encode_stream_response(response: InferResponse) -> bytes:
    """Write a ModelStreamInferResponse that carries a response."""
    body = encode_response(response)
    return length_prefix(_INFER_RESPONSE_FIELD, len(body)) + body


def encode_stream_error(request_id: str, text: str) -> bytes:
    """Write a ModelStreamInferResponse that carries the error of the request with that id."""
    return pb.ModelStreamInferResponse(
        error_message=text, infer_response=pb.ModelInferResponse(id=request_id)
    ).SerializeToString()


def _parse(kind: Any, data: bytes) -> Any:
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise InvalidMessage(f"malformed {kind.DESCRIPTOR.name}: {error}") from None


def _take_apart(message: bytes, kind: Any, raw_field: int) -> tuple[Any, list[memoryview]]:
    parts = split(message, raw_field)
    if parts is None:
        whole = _parse(kind, message)
        raw = (
            whole.raw_input_contents if kind is pb.ModelInferRequest else whole.raw_output_contents
        )
        return whole, [memoryview(entry) for entry in raw]
    return _parse(kind, parts.rest), _views(message, parts)


def _views(message: bytes, parts: Split) -> list[memoryview]:
    view = memoryview(message)
    return [view[start:stop] for start, stop in parts.spans]


def _put_together(header: bytes, raw_field: int, payloads: Iterable[memoryview]) -> bytes:
    pieces: list[bytes | memoryview] = [header]
    position = len(header)
    for payload in payloads:
        prefix = length_prefix(raw_field, payload.nbytes)
        if payload.nbytes >= _WORTH_ALIGNING_BYTES:
            prefix = _padding(position + len(prefix)) + prefix
        pieces += (prefix, payload)
        position += len(prefix) + payload.nbytes
    # One join is the one copy; from 1 MiB on CPython lets other threads run meanwhile.
    return b"".join(pieces)


def _padding(position: int) -> bytes:
    """A field nobody knows, as long as it takes to align what would start at `position`."""
    short = -position % _ALIGNMENT
    if short == 0:
        return b""
    # Tag and length take two bytes themselves.
    size = short - 2 if short >= 2 else short - 2 + _ALIGNMENT
    return length_prefix(_PADDING_FIELD, size) + bytes(size)


def _read_response(header: Any, raw: list[memoryview]) -> InferResponse:
    return InferResponse(
        model_name=header.model_name,
        model_version=header.model_version,
        id=header.id,
        parameters=_read_parameters(header.parameters),
        outputs=_read_tensors("output", header.outputs, raw),
    )


def _read_parameters(parameters: Any) -> Mapping[str, Parameter]:
    if not parameters:
        return {}
    read: dict[str, Parameter] = {}
    for name, value in parameters.items():
        choice = value.WhichOneof("parameter_choice")
        if choice is None:
            raise InvalidMessage(f"parameter {name!r} carries no value")
        read[name] = getattr(value, choice)
    return read


def _write_parameters(target: Any, parameters: Mapping[str, Parameter]) -> None:
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


def _read_tensors(role: str, headers: Sequence[Any], raw: list[memoryview]) -> tuple[Tensor, ...]:
    shared = ["shared_memory_region" in header.parameters for header in headers]
    # For an output in shared memory the sender may leave an empty entry in its place.
    keeps_place = role == "output" and len(raw) == len(headers)
    wanted = len(headers) if keeps_place else shared.count(False)
    if raw and len(raw) != wanted:
        raise InvalidMessage(
            f"{len(raw)} raw contents came for {wanted} {role}s; one each was wanted"
        )
    supply = iter(raw)
    return tuple(
        _read_tensor(role, header, next(supply) if raw and (keeps_place or not absent) else None)
        for header, absent in zip(headers, shared, strict=True)
    )


def _read_tensor(role: str, header: Any, raw: memoryview | None) -> Tensor:
    what = f"{role} {header.name!r}"
    shape = tuple(header.shape)
    parameters = _read_parameters(header.parameters)
    dtype = DTYPES.get(header.datatype)
    if dtype is None:
        raise InvalidMessage(
            f"{what} has datatype {header.datatype!r}; supported are {', '.join(DTYPES)}"
        )
    if len(shape) > _MOST_DIMENSIONS:
        raise InvalidMessage(
            f"{what} has {len(shape)} dimensions; at most {_MOST_DIMENSIONS} were wanted"
        )
    if any(size < 0 for size in shape):
        raise InvalidMessage(f"{what} has shape {list(shape)}; no dimension may be negative")
    # Numpy counts the bytes even where a dimension of 0 leaves none.
    if math.prod(size or 1 for size in shape) * dtype.itemsize > sys.maxsize:
        raise InvalidMessage(f"{what} has shape {list(shape)}, which is too large")
    typed = header.HasField("contents")
    if "shared_memory_region" in parameters:
        if typed or raw:
            raise InvalidMessage(f"{what} lies in shared memory and must carry no contents")
        return Tensor(header.name, header.datatype, shape, None, parameters)
    if raw is None:
        data = _read_contents(what, header, math.prod(shape))
    elif typed:
        raise InvalidMessage(f"{what} has typed contents beside raw contents; send one of them")
    elif header.datatype == BYTES:
        data = decode_elements(what, raw, shape)
    else:
        wanted = math.prod(shape) * dtype.itemsize
        if raw.nbytes != wanted:
            raise InvalidMessage(
                f"{what} has {raw.nbytes} bytes; "
                f"{header.datatype} of shape {list(shape)} takes {wanted}"
            )
        data = np.frombuffer(raw, dtype)
        if header.datatype == "BOOL":
            # Any byte may come; one that is neither 0 nor 1 is no bool to numpy or ONNX Runtime.
            data = data.view(np.uint8) != 0
    return Tensor(header.name, header.datatype, shape, data.reshape(shape), parameters)


def _read_contents(what: str, header: Any, wanted: int) -> Array:
    attribute = _CONTENTS.get(header.datatype)
    if attribute is None:
        raise InvalidMessage(f"{what} is {header.datatype}, which travels as raw contents only")
    for descriptor, values in header.contents.ListFields():
        if descriptor.name != attribute and len(values):
            raise InvalidMessage(
                f"{what} is {header.datatype} but carries {descriptor.name}; wanted {attribute}"
            )
    values = getattr(header.contents, attribute)
    if len(values) != wanted:
        raise InvalidMessage(
            f"{what} has {len(values)} elements; shape {list(header.shape)} takes {wanted}"
        )
    if header.datatype == BYTES:
        return _objects(values)
    try:
        data: Array = np.array(values, DTYPES[header.datatype])
    except OverflowError:
        raise InvalidMessage(f"{what} has elements that {header.datatype} cannot hold") from None
    return data


def decode_elements(what: str, raw: memoryview, shape: tuple[int, ...]) -> Array:
    """BYTES elements, each a 4-byte little-endian length before as many bytes, as Python bytes.

    InvalidMessage, which names `what`, when they do not fit the shape or the bytes.
    """
    wanted = math.prod(shape)
    elements: list[bytes] = []
    at, end = 0, raw.nbytes
    while at < end:
        start = at + 4
        at = start + int.from_bytes(raw[at:start], "little")
        if at > end:
            raise InvalidMessage(f"{what} has an element that runs over its {end} bytes")
        elements.append(bytes(raw[start:at]))
    if len(elements) != wanted:
        raise InvalidMessage(f"{what} has {len(elements)} elements; its shape takes {wanted}")
    return _objects(elements).reshape(shape)


def _objects(elements: Sequence[bytes]) -> Array:
    # np.array would make a fixed-width string array of them.
    data = np.empty(len(elements), np.object_)
    data[:] = elements
    return data


def _write_tensors(target: Any, tensors: Iterable[Tensor], *, keep_place: bool) -> list[memoryview]:
    payloads: list[memoryview] = []
    for tensor in tensors:
        entry = target.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        _write_parameters(entry.parameters, tensor.parameters)
        if tensor.data is not None:
            payloads.append(encode_data(tensor.datatype, tensor.data))
        elif keep_place:
            payloads.append(memoryview(b""))
    return payloads


def encode_data(datatype: str, data: Array) -> memoryview:
    """Bytes of a tensor as they travel: a view where it lies so already."""
    if datatype == BYTES:
        return memoryview(b"".join(_element(value) for value in data.reshape(-1)))
    little_endian = np.ascontiguousarray(data, DTYPES[datatype])
    return little_endian.reshape(-1).view(np.uint8).data


def _element(value: Any) -> bytes:
    encoded = value.encode() if isinstance(value, str) else bytes(value)
    return len(encoded).to_bytes(4, "little") + encoded
