"""Statuses and deadlines in the transport's terms."""

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


class _Raised:
    """Turns any error of a call into a StatusError."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, failure: BaseException | None, trace: object) -> None:
        if isinstance(failure, Exception):
            raise error(failure) from None


# One for all calls: a generator for each, as contextlib makes it, is five calls more.
RAISED = _Raised()


def deadline_ns(call: ServerCall) -> int | None:
    """The client's deadline on the monotonic clock."""
    return None if call.deadline_s is None else int(call.deadline_s * 1e9)
