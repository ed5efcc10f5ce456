"""Names of models and versions, and names of files as texts."""

import re

# As in Triton: a folder such as 01 could not be found again by its number.
VERSION = re.compile("0|[1-9][0-9]{0,18}")

# Bytes of file names that are not UTF-8 are among them, as Python has it.
_SURROGATE = re.compile("[\ud800-\udfff]")


def is_model_name(name: str) -> bool:
    """Whether it names a folder directly below the repository, in UTF-8."""
    odd = {"/", "\0"} & set(name) or _SURROGATE.search(name)
    return bool(name) and not name.startswith(".") and not odd


def printable(text: str) -> str:
    r"""A text that can be sent: bytes in the names of files that are not UTF-8 become \xNN."""
    return _SURROGATE.sub(_escaped, text)


def _escaped(surrogate: re.Match[str]) -> str:
    code = ord(surrogate[0])
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"
