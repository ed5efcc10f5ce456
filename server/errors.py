"""What can go wrong with a request or at start, in the service's own terms."""


class ServingError(Exception):
    """Base of all of them; the text is meant for the client."""


class InvalidInput(ServingError):
    """The request does not fit the model it names."""


class ModelNotFound(ServingError):
    """No model, or no version of it, of that name is here."""


class ModelUnavailable(ServingError):
    """The model is known, but cannot serve now."""


class ModelBroken(ServingError):
    """The model does not do what its signature says."""


class ServerStopping(ServingError):
    """The server drains and takes no more requests."""


class QueueTimeout(ServingError):
    """The request waited longer than it said it would."""


class QueueFull(ServingError):
    """There was no room for the request before its deadline."""


class TooLarge(ServingError):
    """The request needs more than the server could ever give it."""


class TooMany(ServingError):
    """More streams are open than the server allows."""


class DeadlinePassed(ServingError):
    """The client's deadline passed before an answer was there."""


class Cancelled(ServingError):
    """The client gave the request up."""


class Unsupported(ServingError):
    """The feature is switched off, or not part of this server."""


class FeatureUnavailable(ServingError):
    """A part of the protocol that its clients know some servers to lack."""


class Unauthenticated(ServingError):
    """The call carries no token, or one that is not valid."""


class Forbidden(ServingError):
    """The call's token is not good for it."""


class StreamIdle(ServingError):
    """A stream sent nothing for longer than it may."""


class RegionNotFound(ServingError):
    """No shared-memory region of that name is registered."""


class RegionExists(ServingError):
    """A shared-memory region of that name is registered already."""


class RegionForbidden(ServingError):
    """The shared memory belongs to somebody else."""


class StartError(ServingError):
    """The server cannot start; the text says which file or option is at fault."""


class LoadError(StartError):
    """A model cannot be loaded; the text says which file or field is at fault."""


class ControlOff(ServingError):
    """Models are not loaded and unloaded by request in this server."""
