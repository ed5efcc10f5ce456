"""Count the fields of a message before it is parsed: two bytes can become some dozens.

Of a ModelInferRequest `weight.py` knows more. This is for messages of every kind, small as they
usually are.
"""

from google.protobuf.descriptor import Descriptor

from protos.errors import InvalidMessage
from protos.wire import fields

_LEN = 2


def check(kind: Descriptor, message: bytes, most: int) -> None:
    """InvalidMessage if a message of a kind has more than `most` fields, with those in them."""
    if _left(kind, memoryview(message), most) < 0:
        raise InvalidMessage(f"the message has more than {most} fields, the limit")


def _left(kind: Descriptor, message: memoryview, most: int) -> int:
    """How many of `most` fields are left beside those of a message; negative if it has more."""
    left, end = most, 0
    for tag, _, payload, end in fields(message):
        left -= 1
        known = kind.fields_by_number.get(tag >> 3)
        if left >= 0 and tag & 7 == _LEN and known is not None and known.message_type is not None:
            left = _left(known.message_type, message[payload:end], left)
        if left < 0:
            return left
    # What is behind is unusual: it may be as many fields.
    return left - max(0, len(message) - end + 1) // 2
