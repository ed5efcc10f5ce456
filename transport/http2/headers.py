"""Header blocks (HPACK, RFC 7541) of one connection.

Blocks are sent without the dynamic table: a literal costs some bytes more and no state, so any
thread may encode, and what was encoded once is kept. Received blocks are decoded by `hpack`. gRPC's
clients repeat theirs, byte by byte; as long as the dynamic table stays as it is, so does what they
mean, and what was made of a block is kept with it.

A block over the limit is still decoded to its end, for the dynamic table's sake, but its fields are
dropped: only the call fails. Its end is reached soon, as what it repeats of the table is skipped.
"""

import logging
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Generic, TypeVar

from hpack import Decoder
from hpack.exceptions import HPACKDecodingError, HPACKError
from hpack.hpack import encode_integer
from hpack.table import HeaderTable

from transport.http2.frames import ConnectionFault, ErrorCode

# At DEBUG it logs every header that it decodes, tokens too.
logging.getLogger("hpack").setLevel(logging.WARNING)

Headers = tuple[tuple[str, str], ...]
Parsed = TypeVar("Parsed")

# Of one block, decoded, unless its reader allows less; the fields beyond it are dropped.
MAX_LIST_BYTES = 64 * 1024
# Dropped fields that are not merely repeated from the table; more end the connection.
MAX_DROPPED_FIELDS = 256
# Fields of the table by an index of one byte; they leave the table as it is.
_REPEATED = re.compile(rb"[\x80-\xfe]+")
_REMEMBERED_BLOCKS = 64
_REMEMBERED_BLOCK_BYTES = 2048
_NEVER_INDEXED, _NOT_INDEXED = 0x10, 0x00
_SECRET = frozenset({"authorization", "cookie"})


def encode_once(name: str, value: str) -> bytes:
    """A block of one header that is not expected again."""
    kind = _NEVER_INDEXED if name in _SECRET else _NOT_INDEXED
    raw_name, raw_value = name.encode("latin-1"), value.encode("latin-1")
    return b"".join(
        (
            bytes((kind,)),
            *(encode_integer(len(raw_name), 7), raw_name),
            *(encode_integer(len(raw_value), 7), raw_value),
        )
    )


_field = lru_cache(maxsize=1024)(encode_once)


def encode(headers: Iterable[tuple[str, str]]) -> bytes:
    """A header block that any decoder understands, regardless of earlier blocks."""
    return b"".join([_field(name, value) for name, value in headers])


def list_size(headers: Iterable[tuple[str, str]]) -> int:
    """Size as SETTINGS_MAX_HEADER_LIST_SIZE counts it: 32 bytes more for each field."""
    return sum(len(name) + len(value) + 32 for name, value in headers)


class _Table(HeaderTable):
    """A dynamic table that counts its changes."""

    changes = 0

    def add(self, name: bytes, value: bytes) -> None:
        self.changes += 1
        super().add(name, value)

    @property
    def maxsize(self) -> int:
        return self._maxsize

    @maxsize.setter
    def maxsize(self, newmax: int) -> None:
        self.changes += 1
        HeaderTable.maxsize.fset(self, newmax)  # type: ignore[attr-defined]


class HeaderReader(Generic[Parsed]):
    """Decodes the blocks of one connection, in order, and keeps what `parse` makes of them.

    `parse` gets fields up to `max_bytes` by `list_size`, and the first one beyond: a list over the
    limit shows that some are missing.
    """

    def __init__(self, parse: Callable[[Headers], Parsed], max_bytes: int = MAX_LIST_BYTES) -> None:
        self._parse = parse
        self._max_bytes = max_bytes
        self._decoder = Decoder()
        self._table = self._decoder.header_table = _Table()
        self._known: dict[bytes, Parsed] = {}

    def read(self, block: bytes) -> Parsed:
        """What `parse` makes of the headers; ConnectionFault where they cannot be decoded."""
        known = self._known.get(block)
        if known is not None:
            return known
        before = self._table.changes
        parsed = self._parse(self._decode(block))
        if self._table.changes != before or len(self._known) >= _REMEMBERED_BLOCKS:
            # What blocks mean has changed.
            self._known.clear()
        if self._table.changes == before and len(block) <= _REMEMBERED_BLOCK_BYTES:
            self._known[block] = parsed
        return parsed

    def _decode(self, block: bytes) -> Headers:
        try:
            fields = self._fields(block)
        except (HPACKError, IndexError) as error:
            raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, f"headers: {error}") from None
        return tuple([(str(n, "latin-1"), str(v, "latin-1")) for n, v in fields])

    def _fields(self, block: bytes) -> list[tuple[bytes, bytes]]:
        """As `Decoder.decode`, which loses the table's state at its limit."""
        decoder, view = self._decoder, memoryview(block)
        fields: list[tuple[bytes, bytes]] = []
        at = size = dropped = 0
        while at < len(block):
            if size > self._max_bytes:
                repeated = _REPEATED.match(block, at)
                if repeated is not None:
                    at = repeated.end()
                    continue
                dropped += 1
                if dropped > MAX_DROPPED_FIELDS:
                    raise ConnectionFault(
                        ErrorCode.ENHANCE_YOUR_CALM,
                        f"headers: got {dropped} fields after {self._max_bytes} bytes of them",
                    )
            kind = block[at]
            if kind & 0x80:
                field, used = decoder._decode_indexed(view[at:])
            elif kind & 0x40:
                field, used = decoder._decode_literal_index(view[at:])
            elif kind & 0x20:
                if fields:
                    raise HPACKDecodingError("table size update not at the start of the block")
                at += decoder._update_encoding_context(view[at:])
                continue
            else:
                field, used = decoder._decode_literal_no_index(view[at:])
            at += used
            if size <= self._max_bytes:
                fields.append((field[0], field[1]))
                size += len(field[0]) + len(field[1]) + 32
        decoder._assert_valid_table_size()
        return fields
