"""The one table of errors and their gRPC status codes."""

import logging

import grpc

from protos.errors import InvalidMessage
from server import errors
from transport.status import Code, Status

_log = logging.getLogger(__name__)

# Texts quote the request, and clients drop answers with more than 8 KiB of metadata. A character
# takes up to 12 bytes there: 4 of UTF-8, each written as %XX.
_LONGEST_TEXT = 600
_UNFORESEEN = "internal error"

_CODES: dict[type[Exception], grpc.StatusCode] = {
    InvalidMessage: grpc.StatusCode.INVALID_ARGUMENT,
    errors.InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
    errors.ModelNotFound: grpc.StatusCode.NOT_FOUND,
    errors.LoadError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.ControlOff: grpc.StatusCode.UNAVAILABLE,
    errors.ModelUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.ServerStopping: grpc.StatusCode.UNAVAILABLE,
    errors.QueueTimeout: grpc.StatusCode.UNAVAILABLE,
    errors.QueueFull: grpc.StatusCode.UNAVAILABLE,
    errors.TooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.TooMany: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.OutOfResources: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.DeadlinePassed: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.StreamIdle: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.Cancelled: grpc.StatusCode.CANCELLED,
    errors.Unsupported: grpc.StatusCode.UNIMPLEMENTED,
    errors.FeatureUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.RegionNotFound: grpc.StatusCode.NOT_FOUND,
    errors.RegionExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.Forbidden: grpc.StatusCode.PERMISSION_DENIED,
    errors.RegionForbidden: grpc.StatusCode.PERMISSION_DENIED,
    errors.ModelBroken: grpc.StatusCode.INTERNAL,
}


def described(error: Exception) -> Status:
    """Status for the client, of the project's own transport; nothing is logged.

    An error that the table lacks is INTERNAL with a fixed text.
    """
    error = errors.named(error)
    code = _CODES.get(type(error))
    if code is None:
        return Status(Code.INTERNAL, _UNFORESEEN)
    return Status(Code(code.value[0]), _shortened(str(error)))


def of(error: Exception) -> tuple[grpc.StatusCode, str]:
    """Status code with the text for the client.

    Any other exception is INTERNAL with a fixed text; its traceback goes to the log only.
    """
    known = errors.named(error)
    code = _CODES.get(type(known))
    if code is None:
        _log.error("unexpected error", exc_info=error)
    # The frames of a traceback, and those of its cause, hold the call, and often the
    # error itself or its future. As a cycle, the call would count as open until it is collected.
    error.__traceback__ = error.__cause__ = error.__context__ = None
    if code is None:
        return grpc.StatusCode.INTERNAL, _UNFORESEEN
    return code, _shortened(str(known))


def _shortened(text: str) -> str:
    if len(text) <= _LONGEST_TEXT:
        return text
    return f"{text[: _LONGEST_TEXT - 3]}..."
