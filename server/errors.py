"""Errors of requests and of the start, in the service's own terms."""

from command_line import shortage


class ServingError(Exception):
    """Base class; the text goes to the client."""


class InvalidInput(ServingError):
    """The request does not fit the model it names."""


class ModelNotFound(ServingError):
    """The server has no model, or no version of it, with that name."""


class ModelUnavailable(ServingError):
    """The model exists, but cannot serve now."""


class ModelBroken(ServingError):
    """The model does not do what its signature says."""


class ServerStopping(ServingError):
    """The server is draining and accepts no more requests."""


class QueueTimeout(ServingError):
    """The request waited in the queue longer than its own timeout."""


class QueueFull(ServingError):
    """The queue, or the byte budget, had no room for the request."""


class TooLarge(ServingError):
    """The request needs more memory than the server's whole budget."""


class TooMany(ServingError):
    """A limit on a count is reached: open calls or streams, or shared-memory regions."""


class OutOfResources(ServingError):
    """The process has no memory, threads or descriptors left for the request."""


class DeadlinePassed(ServingError):
    """The client's deadline passed before the answer was ready."""


class Cancelled(ServingError):
    """The client cancelled the request."""


class Unsupported(ServingError):
    """The feature is switched off, or not part of this server."""


class FeatureUnavailable(ServingError):
    """The server lacks an optional part of the protocol; clients expect this error for it."""


class Unauthenticated(ServingError):
    """The call carries no token, or one that is not valid."""


class Forbidden(ServingError):
    """The call's token lacks the permission for it."""


class StreamIdle(ServingError):
    """A stream sent no message within the idle timeout."""


class RegionNotFound(ServingError):
    """No shared-memory region of that name is registered."""


class RegionExists(ServingError):
    """A shared-memory region of that name is registered already."""


class RegionForbidden(ServingError):
    """The client may not use that shared memory."""


class StartError(ServingError):
    """The server cannot start; the text says which file or option is at fault."""


class LoadError(StartError):
    """A model cannot be loaded; the text says which file or field is at fault."""


class ControlOff(ServingError):
    """This server does not load and unload models on request."""


def named(error: Exception) -> Exception:
    """OutOfResources for Python's own errors of that kind; any other error as it is."""
    if isinstance(error, ServingError):
        return error
    short = shortage.described(error)
    return error if short is None else OutOfResources(short)
