"""Read text files in the encodings of common editors."""

import codecs

from protos.errors import InvalidText

_ENCODINGS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_EXPECTED = "expected UTF-8, or UTF-16 with a byte order mark"


def decode(data: bytes) -> str:
    """Return the text without its byte order mark: UTF-8, which needs none, or UTF-16.

    InvalidText names the position of the first byte that is neither, counted from 0.
    """
    mark, encoding = next(
        (known for known in _ENCODINGS if data.startswith(known[0])), (b"", "utf-8")
    )
    try:
        text = data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        raise _refused(data, len(mark) + error.start) from None
    # UTF-16 without a mark, and UTF-32, look like text with a zero beside each letter.
    if "\0" in text:
        before = text[: text.index("\0")].encode(encoding)
        raise _refused(data, len(mark) + len(before))
    return text


def _refused(data: bytes, position: int) -> InvalidText:
    return InvalidText(f"byte {position} is 0x{data[position]:02x}; {_EXPECTED}")
