"""What can be wrong with a message."""


class InvalidMessage(ValueError):
    """A message that breaks the protocol; the text says what came and what was wanted.

    `request_id` is the id that the message carried, as far as it could be read.
    """

    def __init__(self, text: str, request_id: str = "") -> None:
        super().__init__(text)
        self.request_id = request_id
