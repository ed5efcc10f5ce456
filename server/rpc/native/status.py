"""Statuses and deadlines in the transport's terms."""

import contextlib
import time
from collections.abc import Iterator

from server.rpc import status as rpc_status
from transport.serving.server_call import ServerCall
from transport.status import Code, Status, StatusError


def of(failure: Exception) -> Status:
    """Status for the client; anything unforeseen is logged, and INTERNAL."""
    if isinstance(failure, StatusError):
        return failure.status
    code, text = rpc_status.of(failure)
    return Status(Code(code.value[0]), text)


def error(failure: Exception) -> StatusError:
    """The same as an error that ends the call."""
    found = of(failure)
    return StatusError(found.code, found.text, found.trailing)


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """Turn any error of a call into a StatusError."""
    try:
        yield
    except Exception as failure:
        raise error(failure) from None


def deadline_ns(call: ServerCall) -> int | None:
    """The client's deadline on the monotonic clock."""
    left_s = call.time_remaining_s()
    return None if left_s is None else time.monotonic_ns() + int(left_s * 1e9)
