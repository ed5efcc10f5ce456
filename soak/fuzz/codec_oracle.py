"""Compare the codec's result for a message with that of protobuf's own parser."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from protos import inference_pb2 as pb
from protos.codec import decode_response, decode_stream_response
from protos.datatypes import BYTES, DTYPES
from protos.errors import InvalidMessage
from protos.request_decoding import decode_request
from protos.tensors import Tensor

_MALFORMED = "malformed "
# What is counted first may be over a limit in a message that could not be read to its end either.
_LIMIT = ", the limit"


@dataclass(frozen=True, slots=True)
class Decoder:
    """An entry point of the codec: its function, the message type, the field of its tensors."""

    decode: Callable[[bytes], Any]
    kind: Any
    tensors: str
    raw: str


REQUEST = Decoder(decode_request, pb.ModelInferRequest, "inputs", "raw_input_contents")
RESPONSE = Decoder(decode_response, pb.ModelInferResponse, "outputs", "raw_output_contents")
STREAM_RESPONSE = Decoder(
    decode_stream_response, pb.ModelStreamInferResponse, "outputs", "raw_output_contents"
)


def disagreement(decoder: Decoder, data: bytes) -> str | None:
    """The difference between the codec and protobuf; None if they agree.

    The codec must reject what protobuf rejects, and must decode what protobuf reads to the same
    result, or reject it for its content. Any other exception is a disagreement.
    """
    try:
        decoded = decoder.decode(data)
    except InvalidMessage as error:
        decoded = error
    except Exception as error:
        return f"raised {error!r}"
    try:
        message = decoder.kind.FromString(data)
    except DecodeError:
        refused = isinstance(decoded, InvalidMessage) and (
            str(decoded).startswith(_MALFORMED) or str(decoded).endswith(_LIMIT)
        )
        return None if refused else f"protobuf rejects it, the codec decodes {decoded!r}"
    if isinstance(decoded, InvalidMessage):
        # Serialised again by protobuf, the message must be rejected too.
        return _refused_anew(decoder, message, decoded)
    if decoder is STREAM_RESPONSE:
        text, decoded = decoded
        if text != message.error_message:
            return f"error message {text!r}; protobuf reads {message.error_message!r}"
        message = message.infer_response
    return _difference(decoder, decoded, message)


def _refused_anew(decoder: Decoder, message: Any, refusal: InvalidMessage) -> str | None:
    if str(refusal).startswith(_MALFORMED):
        return f"protobuf reads it, the codec rejects it: {refusal}"
    message.DiscardUnknownFields()
    try:
        decoded = decoder.decode(message.SerializeToString())
    except InvalidMessage as error:
        # Maps are serialised in any order, and only the first error is reported.
        return f"now {error}" if str(error).startswith(_MALFORMED) else None
    return f"rejected with {refusal}; as protobuf serialises it, decoded as {decoded!r}"


def _difference(decoder: Decoder, decoded: Any, message: Any) -> str | None:
    for name in ("model_name", "model_version", "id"):
        if getattr(decoded, name) != getattr(message, name):
            return f"{name} {getattr(decoded, name)!r}, expected {getattr(message, name)!r}"
    if not _same_parameters(decoded.parameters, message.parameters):
        return f"parameters {decoded.parameters!r}, expected {message.parameters!r}"
    tensors, headers = getattr(decoded, decoder.tensors), getattr(message, decoder.tensors)
    if len(tensors) != len(headers):
        return f"{len(tensors)} tensors, expected {len(headers)}"
    raw = list(getattr(message, decoder.raw))
    # For an output in shared memory there may be an empty entry in its place.
    keeps_place = decoder is not REQUEST and len(raw) == len(headers)
    carried = [h for h in headers if keeps_place or "shared_memory_region" not in h.parameters]
    contents = {id(h): raw[n] for n, h in enumerate(carried)} if raw else {}
    for tensor, header in zip(tensors, headers, strict=True):
        difference = _tensor_difference(tensor, header, contents.get(id(header)))
        if difference is not None:
            return f"tensor {header.name!r}: {difference}"
    return None


def _tensor_difference(tensor: Tensor, header: Any, raw: bytes | None) -> str | None:
    said = (tensor.name, tensor.datatype, tensor.shape)
    if said != (header.name, header.datatype, tuple(header.shape)):
        return f"{said!r} is not what its header says"
    if not _same_parameters(tensor.parameters, header.parameters):
        return f"parameters {tensor.parameters!r}, expected {header.parameters!r}"
    if tensor.data is None or "shared_memory_region" in header.parameters:
        shared = tensor.data is None and "shared_memory_region" in header.parameters
        return None if shared else "it has data and lies in shared memory, or neither"
    if tensor.data.shape != tensor.shape or tensor.data.dtype != DTYPES[header.datatype]:
        return f"an array {tensor.data.dtype} {tensor.data.shape}"
    if raw is None:
        values = [value for _, field in header.contents.ListFields() for value in field]
        return _values_difference(tensor, values)
    return _raw_difference(tensor, raw)


def _values_difference(tensor: Tensor, values: list[Any]) -> str | None:
    assert tensor.data is not None
    wanted = np.empty(len(values), tensor.data.dtype)
    wanted[:] = values
    same = (
        tensor.data.reshape(-1).tolist() == values
        if tensor.datatype == BYTES
        else tensor.data.tobytes() == wanted.tobytes()
    )
    return None if same else f"{tensor.data!r}, expected {values!r}"


def _raw_difference(tensor: Tensor, raw: bytes) -> str | None:
    assert tensor.data is not None
    if tensor.datatype == BYTES:
        got = b"".join(len(e).to_bytes(4, "little") + e for e in tensor.data.reshape(-1))
    elif tensor.datatype == "BOOL":
        # Any byte except 0 is true.
        got, raw = tensor.data.tobytes(), bytes(byte != 0 for byte in raw)
    else:
        got = tensor.data.tobytes()
    return None if got == raw else f"bytes {got[:64]!r}, expected {raw[:64]!r}"


def _same_parameters(read: Mapping[str, Any], entries: Any) -> bool:
    if len(read) != len(entries):
        return False
    # Compared as text, where NaN equals NaN, and True differs from 1.
    return all(
        name in read and repr(read[name]) == repr(getattr(e, e.WhichOneof("parameter_choice")))
        for name, e in entries.items()
    )
