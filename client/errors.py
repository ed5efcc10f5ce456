"""Errors of the client, in terms of the caller."""


class ClientError(Exception):
    """Base class."""


class UsageError(ClientError):
    """The call cannot be made: a bad value, file or setting."""


class RequestFailed(ClientError):
    """A request got an error from the server or the connection.

    `code` is gRPC's name of it, such as `INVALID_ARGUMENT`.
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text


class Unavailable(RequestFailed):
    """The server cannot be reached, or is stopping; trying again later may help."""


class Unreachable(Unavailable):
    """No connection to a server; the text gives the address and the reason.

    `waiting_helps` is false if a setting must be changed first, such as for an untrusted
    certificate.
    """

    def __init__(self, text: str, *, waiting_helps: bool = True) -> None:
        super().__init__("UNAVAILABLE", text)
        self.waiting_helps = waiting_helps


class Interrupted(RequestFailed):
    """Neither the caller nor the server's error ended the call: a proxy, or a reset connection.

    It was sent again as often as the retries allow.
    """


class DeadlineExceeded(RequestFailed):
    """The deadline passed before the answer arrived."""
