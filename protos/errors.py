"""What can be wrong with a message or a text file, or missing from it."""


class InvalidMessage(ValueError):
    """A message that breaks the protocol; the text says what came and what was wanted.

    `request_id` is the id that the message carried, as far as it could be read.
    """

    def __init__(self, text: str, request_id: str = "") -> None:
        super().__init__(text)
        self.request_id = request_id


class InvalidText(ValueError):
    """A file is no text in UTF-8 or UTF-16; the text names the first byte that is not."""


class OutputMissing(KeyError):
    """A response was asked for an output that it does not carry; the text lists those it does."""

    def __str__(self) -> str:
        # KeyError would quote the sentence.
        return str(self.args[0])
