"""Check the metadata that a caller gives, and add the client's own."""

import re
from collections.abc import Iterable, Sequence

from client.errors import UsageError
from transport.call import RESERVED

Metadata = tuple[tuple[str, str | bytes], ...]

# It decides how the errors of a stream are received.
ERRORS_END_STREAMS = "triton_grpc_error"
_NAME = re.compile(r"[0-9a-z_.-]+")
_TEXT = re.compile(r"[ -~]*")
_BINARY = "-bin"
_PROTOCOLS = "grpc-"
# As HTTP/2 counts them. Servers take 8 or 16 KiB by default, the rest of the headers included, and
# some end the connection over more.
_MOST_BYTES = 15 * 1024
_ENTRY_BYTES = 32


def checked(entries: Iterable[tuple[str, str | bytes]]) -> Metadata:
    """Entries that can be sent; UsageError for the first that cannot."""
    if isinstance(entries, str | bytes) or not isinstance(entries, Sequence):
        raise UsageError(
            f"metadata: got {type(entries).__name__}, expected a sequence of pairs (name, value)"
        )
    found = tuple(_checked(entry) for entry in entries)
    size = sum(_ENTRY_BYTES + len(name) + _encoded_bytes(value) for name, value in found)
    if size > _MOST_BYTES:
        raise UsageError(f"metadata: got {size} bytes, expected at most {_MOST_BYTES}")
    return found


def merged(own: Metadata, given: Metadata) -> Metadata:
    """Both, without the client's own entries of the names that the caller gives."""
    names = {name for name, _ in given}
    return (*(entry for entry in own if entry[0] not in names), *given)


def _checked(entry: object) -> tuple[str, str | bytes]:
    if isinstance(entry, str | bytes) or not isinstance(entry, Sequence) or len(entry) != 2:
        raise UsageError(f"metadata: got {entry!r}, expected a pair (name, value)")
    name, value = entry
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise UsageError(
            f"metadata: got the name {name!r}, expected lower-case letters, digits, '-', '_', '.'"
        )
    if name in RESERVED or name.startswith(_PROTOCOLS) or name == ERRORS_END_STREAMS:
        raise UsageError(f"metadata: the name {name!r} is set by the client")
    if name.endswith(_BINARY):
        if not isinstance(value, bytes):
            raise UsageError(f"metadata: {name!r} has a {type(value).__name__}, expected bytes")
        return name, value
    if not isinstance(value, str):
        raise UsageError(
            f"metadata: {name!r} has a {type(value).__name__}, expected str; "
            f"the names of bytes end with {_BINARY}"
        )
    if _TEXT.fullmatch(value) is None or value != value.strip():
        raise UsageError(
            f"metadata: {name!r} has the value {value!r}, expected printable ASCII without spaces "
            "at its ends"
        )
    return name, value


def _encoded_bytes(value: str | bytes) -> int:
    return len(value) if isinstance(value, str) else -(-len(value) * 4 // 3)
