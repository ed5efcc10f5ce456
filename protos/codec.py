"""Convert inference messages to Python records, without copying the tensors' bytes.

Decoded tensors are read-only views into the received message, which they keep alive; they may be
unaligned when the sender did not pad. An encoded message is a sequence of pieces, among them the
tensors' own memory; joining them copies each tensor once.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeAlias

from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from protos import inference_pb2 as pb
from protos.errors import InvalidMessage, OutputMissing
from protos.tensors import (
    Layout,
    Parameter,
    Tensor,
    read_parameters,
    read_tensors,
    write_data,
    write_header,
    write_parameters,
)
from protos.wire import Split, length_prefix, split

# A message in pieces, one after the other; a memoryview is the memory of a tensor's array.
Pieces: TypeAlias = Sequence[bytes | memoryview]

_RAW_INPUT_FIELD = pb.ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER
_RAW_OUTPUT_FIELD = pb.ModelInferResponse.RAW_OUTPUT_CONTENTS_FIELD_NUMBER
_RESPONSE_ID_FIELD = pb.ModelInferResponse.ID_FIELD_NUMBER
_INFER_RESPONSE_FIELD = pb.ModelStreamInferResponse.INFER_RESPONSE_FIELD_NUMBER

# Receivers skip fields they do not know, so an unused one is where padding goes.
_PADDING_FIELD = 15
_ALIGNMENT = 16
_WORTH_ALIGNING_BYTES = 4096
# A quarter of a MiB at most, with what is made of it a few times that.
REMEMBERED_HEADERS = 256
REMEMBERED_HEADER_BYTES = 1024


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """An output that the client requests by name."""

    name: str
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


@dataclass(slots=True)
class InferRequest:
    """The content of a ModelInferRequest; no outputs named means all of them."""

    model_name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[RequestedOutput, ...] = ()
    model_version: str = ""
    id: str = ""
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    byte_size: int = 0


@dataclass(slots=True)
class InferResponse:
    """The content of a ModelInferResponse; `response["scores"]` is the array of that output."""

    model_name: str
    outputs: tuple[Tensor, ...]
    model_version: str = ""
    id: str = ""
    parameters: Mapping[str, Parameter] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the outputs, in the order of the response."""
        return tuple(tensor.name for tensor in self.outputs)

    def __getitem__(self, name: str) -> NDArray[Any]:
        """The array of an output, read-only; OutputMissing, a KeyError, if there is none."""
        for tensor in self.outputs:
            if tensor.name == name:
                if tensor.data is None:
                    raise OutputMissing(
                        f"output {name!r} lies in shared memory, not in the response"
                    )
                return tensor.data
        raise OutputMissing(f"the response has no output {name!r}; it has {list(self.names)}")

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __iter__(self) -> Iterator[str]:
        """Names of the outputs, as in a mapping; otherwise iteration would ask for [0]."""
        return iter(self.names)


def encode_request(request: InferRequest) -> bytes:
    """Write a ModelInferRequest with raw contents."""
    # One join is the one copy; from 1 MiB on CPython lets other threads run meanwhile.
    return b"".join(request_pieces(request))


def request_pieces(request: InferRequest) -> Pieces:
    """As `encode_request`, without a copy of the tensors, which have to stay as they are."""
    header = pb.ModelInferRequest(
        model_name=request.model_name, model_version=request.model_version, id=request.id
    )
    write_parameters(header.parameters, request.parameters)
    for output in request.outputs:
        write_parameters(header.outputs.add(name=output.name).parameters, output.parameters)
    for tensor in request.inputs:
        write_header(header.inputs, tensor.name, tensor.datatype, tensor.shape, tensor.parameters)
    payloads = write_data("input", request.inputs)
    return _pieces(header.SerializeToString(), _RAW_INPUT_FIELD, payloads)


def decode_response(message: bytes | memoryview) -> InferResponse:
    """Read a ModelInferResponse; InvalidMessage if it is malformed or contradicts itself."""
    parts = split(message, _RAW_OUTPUT_FIELD, id_field=_RESPONSE_ID_FIELD)
    if parts is None:
        return _whole_response(parse(pb.ModelInferResponse, message))
    return _split_response(message, parts)


def encode_response(response: InferResponse) -> bytes:
    """Write a ModelInferResponse with raw contents."""
    outputs = response.outputs
    layouts = tuple([(each.name, each.datatype, each.shape) for each in outputs])
    parameters = [each.parameters for each in outputs]
    if response.parameters or any(parameters):
        header = _write_header(
            response.model_name, response.model_version, layouts, parameters, response.parameters
        )
    else:
        header = _plain_header(response.model_name, response.model_version, layouts)
    if response.id:
        request_id = response.id.encode()
        header += length_prefix(_RESPONSE_ID_FIELD, len(request_id)) + request_id
    return b"".join(_pieces(header, _RAW_OUTPUT_FIELD, write_data("output", outputs)))


def decode_stream_response(message: bytes | memoryview) -> tuple[str, InferResponse]:
    """Read a ModelStreamInferResponse as (error message or "", response)."""
    outer = split(message, _INFER_RESPONSE_FIELD)
    if outer is not None and len(outer.spans) == 1:
        start, stop = outer.spans[0]
        inner = split(message, _RAW_OUTPUT_FIELD, start, stop, id_field=_RESPONSE_ID_FIELD)
        if inner is not None:
            envelope = parse(pb.ModelStreamInferResponse, outer.rest)
            return envelope.error_message, _split_response(message, inner)
    whole = parse(pb.ModelStreamInferResponse, message)
    return whole.error_message, _whole_response(whole.infer_response)


def encode_stream_response(response: InferResponse) -> bytes:
    """Write a ModelStreamInferResponse that carries a response."""
    body = encode_response(response)
    return length_prefix(_INFER_RESPONSE_FIELD, len(body)) + body


def encode_stream_error(request_id: str, text: str) -> bytes:
    """Write a ModelStreamInferResponse that carries the error of the request with that id."""
    return pb.ModelStreamInferResponse(
        error_message=text, infer_response=pb.ModelInferResponse(id=request_id)
    ).SerializeToString()


_Layouts: TypeAlias = tuple[tuple[str, str, tuple[int, ...]], ...]


def _write_header(
    name: str,
    version: str,
    layouts: _Layouts,
    of_outputs: Sequence[Mapping[str, Parameter]],
    parameters: Mapping[str, Parameter],
) -> bytes:
    """A ModelInferResponse without id and raw contents."""
    header = pb.ModelInferResponse(model_name=name, model_version=version)
    write_parameters(header.parameters, parameters)
    for layout, own in zip(layouts, of_outputs, strict=True):
        write_header(header.outputs, *layout, own)
    written: bytes = header.SerializeToString()
    return written


@lru_cache(maxsize=REMEMBERED_HEADERS)
def _plain_header(name: str, version: str, layouts: _Layouts) -> bytes:
    """The same without parameters, which a server repeats."""
    return _write_header(name, version, layouts, [{}] * len(layouts), {})


def parse(kind: Any, data: bytes | memoryview) -> Any:
    """The message as protobuf reads it; InvalidMessage."""
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise InvalidMessage(f"malformed {kind.DESCRIPTOR.name}: {error}") from None


@dataclass(frozen=True, slots=True)
class Header:
    """What a message says beside its id and its tensors' data."""

    model_name: str
    model_version: str
    parameters: Mapping[str, Parameter]
    layouts: tuple[Layout, ...]
    requested: tuple[RequestedOutput, ...] = ()


def request_header(message: Any) -> Header:
    """What a ModelInferRequest says beside its id and data; InvalidMessage."""
    requested = [
        RequestedOutput(output.name, read_parameters(output.parameters))
        for output in message.outputs
    ]
    return _header_of(message, "input", message.inputs, tuple(requested))


def _response_header(message: Any) -> Header:
    return _header_of(message, "output", message.outputs)


def _header_of(
    message: Any, role: str, tensors: Any, requested: tuple[RequestedOutput, ...] = ()
) -> Header:
    return Header(
        model_name=message.model_name,
        model_version=message.model_version,
        parameters=read_parameters(message.parameters),
        layouts=tuple(Layout.of(role, header) for header in tensors),
        requested=requested,
    )


def read_header(kind: Any, rest: bytes) -> Header:
    """The header in the rest of a message without id and raw contents; InvalidMessage."""
    read = request_header if kind is pb.ModelInferRequest else _response_header
    return read(parse(kind, rest))


# Clients and servers repeat their messages but for id and data.
_known_header = lru_cache(maxsize=REMEMBERED_HEADERS)(read_header)


def _header(kind: Any, parts: Split) -> Header:
    remembered = len(parts.rest) <= REMEMBERED_HEADER_BYTES
    return _known_header(kind, parts.rest) if remembered else read_header(kind, parts.rest)


def _split_response(message: bytes | memoryview, parts: Split) -> InferResponse:
    # First: what is malformed is not looked at any further.
    request_id = id_of(message, parts, pb.ModelInferResponse)
    header = _header(pb.ModelInferResponse, parts)
    return _response(header, request_id, views(message, parts))


def _whole_response(message: Any) -> InferResponse:
    raw = [memoryview(entry) for entry in message.raw_output_contents]
    return _response(_response_header(message), message.id, raw)


def _response(header: Header, request_id: str, raw: list[memoryview]) -> InferResponse:
    return InferResponse(
        model_name=header.model_name,
        model_version=header.model_version,
        id=request_id,
        parameters=dict(header.parameters),
        outputs=read_tensors("output", header.layouts, raw),
    )


def views(message: bytes | memoryview, parts: Split) -> list[memoryview]:
    """The raw contents of a message."""
    view = memoryview(message).toreadonly()
    return [view[start:stop] for start, stop in parts.spans]


def id_of(message: bytes | memoryview, parts: Split, kind: Any) -> str:
    """The id of a message, "" without one; InvalidMessage."""
    if parts.id_span is None:
        return ""
    start, stop = parts.id_span
    try:
        return str(message[start:stop], "utf-8")
    except UnicodeDecodeError:
        raise InvalidMessage(f"malformed {kind.DESCRIPTOR.name}: its id is not UTF-8") from None


def _pieces(header: bytes, raw_field: int, payloads: Iterable[memoryview]) -> Pieces:
    pieces: list[bytes | memoryview] = [header]
    position = len(header)
    for payload in payloads:
        prefix = length_prefix(raw_field, payload.nbytes)
        if payload.nbytes >= _WORTH_ALIGNING_BYTES:
            prefix = _padding(position + len(prefix)) + prefix
        pieces += (prefix, payload)
        position += len(prefix) + payload.nbytes
    return pieces


def _padding(position: int) -> bytes:
    """An unknown field, as long as needed to align the data that would start at `position`."""
    short = -position % _ALIGNMENT
    if short == 0:
        return b""
    # Tag and length take two bytes themselves.
    size = short - 2 if short >= 2 else short - 2 + _ALIGNMENT
    return length_prefix(_PADDING_FIELD, size) + bytes(size)
