"""Errors of messages and text files."""


class InvalidMessage(ValueError):
    """A message that breaks the protocol; the text says what it got and what it expected.

    `request_id` is the id that the message carried, as far as it could be read.
    """

    def __init__(self, text: str, request_id: str = "") -> None:
        super().__init__(text)
        self.request_id = request_id


class InvalidText(ValueError):
    """A file is not text in UTF-8 or UTF-16; the message names the first invalid byte."""


class OutputMissing(KeyError):
    """A response lacks the requested output; the text lists its outputs."""

    def __str__(self) -> str:
        # KeyError would quote the sentence.
        return str(self.args[0])
