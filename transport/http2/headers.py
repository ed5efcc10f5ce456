"""Header blocks (HPACK, RFC 7541) of one connection.

Blocks are sent without the dynamic table: a literal costs some bytes more and no state, so any
thread may encode, and what was encoded once is kept. Received blocks are decoded by `hpack`. gRPC's
clients repeat theirs, byte by byte; as long as the dynamic table stays as it is, so does what they
mean, and what was made of a block is kept with it.
"""

import logging
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Generic, TypeVar

from hpack import Decoder, OversizedHeaderListError
from hpack.exceptions import HPACKError
from hpack.hpack import encode_integer
from hpack.table import HeaderTable

from transport.http2.frames import ConnectionFault, ErrorCode

# At DEBUG it logs every header that it decodes, tokens too.
logging.getLogger("hpack").setLevel(logging.WARNING)

Headers = tuple[tuple[str, str], ...]
Parsed = TypeVar("Parsed")

# More than this, decoded, ends the connection: HPACK's state is lost when decoding stops midway.
MAX_DECODED_BYTES = 64 * 1024
MAX_HEADERS = 256
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
    """A header block that any decoder understands, whatever came before it."""
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
    """Decodes the blocks of one connection, in order, and keeps what `parse` makes of them."""

    def __init__(self, parse: Callable[[Headers], Parsed]) -> None:
        self._parse = parse
        self._decoder = Decoder(max_header_list_size=MAX_DECODED_BYTES)
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
            fields = self._decoder.decode(block, raw=True)
        except OversizedHeaderListError:
            raise ConnectionFault(
                ErrorCode.ENHANCE_YOUR_CALM, f"headers: got more than {MAX_DECODED_BYTES} bytes"
            ) from None
        except (HPACKError, IndexError) as error:
            raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, f"headers: {error}") from None
        headers = tuple([(str(n, "latin-1"), str(v, "latin-1")) for n, v in fields])
        if len(headers) > MAX_HEADERS:
            raise ConnectionFault(
                ErrorCode.ENHANCE_YOUR_CALM, f"headers: got {len(headers)}, more than {MAX_HEADERS}"
            )
        return headers
