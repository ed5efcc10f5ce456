"""Requests as they are sent, with errors in terms of the caller."""

from client.arrays import Rows, as_array
from client.connection.channel import MAX_MESSAGE_BYTES
from client.errors import UsageError
from protos.codec import InferRequest, Pieces, request_pieces
from protos.errors import InvalidMessage
from protos.tensors import Tensor


def encoded(request: InferRequest) -> Pieces:
    """The message of a single request; UsageError if there can be none."""
    try:
        message = request_pieces(request)
    except InvalidMessage as error:
        raise UsageError(str(error)) from None
    size = sum(map(len, message))
    if size > MAX_MESSAGE_BYTES:
        raise UsageError(
            f"got a request of {size} bytes; a message has at most {MAX_MESSAGE_BYTES}"
        )
    return message


def undescribed(name: str, data: Rows) -> Tensor:
    """An input that the model's metadata do not have; UsageError for an unknown dtype."""
    array = as_array(data, f"input {name!r}")
    try:
        return Tensor.of(name, array)
    except TypeError as error:
        raise UsageError(f"input {name!r}: {error}") from None
