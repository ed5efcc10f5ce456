"""What the client raises, in terms of the caller."""


class ClientError(Exception):
    """Base of all of them."""


class UsageError(ClientError):
    """What was asked for cannot be done: a bad value, file or setting."""


class RequestFailed(ClientError):
    """The server, or the way to it, answered a request with an error.

    `code` is gRPC's name of it, such as `INVALID_ARGUMENT`.
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text


class Unavailable(RequestFailed):
    """No server is there, or it is stopping; trying again later may help."""


class Unreachable(Unavailable):
    """No connection to a server came about; the text says to which address, and why.

    `waiting_helps` is false for what stays so until somebody changes a setting, such as a
    certificate that is not trusted.
    """

    def __init__(self, text: str, *, waiting_helps: bool = True) -> None:
        super().__init__("UNAVAILABLE", text)
        self.waiting_helps = waiting_helps


class DeadlineExceeded(RequestFailed):
    """The answer was not there in time."""
