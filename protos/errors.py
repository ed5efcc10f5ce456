"""What can be wrong with a message, or missing from it."""


class InvalidMessage(ValueError):
    """A message that breaks the protocol; the text says what came and what was wanted.

    `request_id` is the id that the message carried, as far as it could be read.
    """

    def __init__(self, text: str, request_id: str = "") -> None:
        super().__init__(text)
        self.request_id = request_id


class OutputMissing(KeyError):
    """A response was asked for an output that it does not carry; the text lists those it does."""

    def __str__(self) -> str:
        # KeyError would quote the sentence.
        return str(self.args[0])
