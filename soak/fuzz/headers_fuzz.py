"""Fuzz the header reader against hpack: `python -m soak.fuzz.headers_fuzz SEED SECONDS COUNT`.

An input is one header block, valid or damaged, of a connection that goes on until a block is
rejected: what a block means depends on those before it. The transport's reader remembers blocks and
walks over their fields itself; `hpack.Decoder`, which does neither, must read the same fields or
reject the same block.
"""

import random
import sys
from pathlib import Path

from hpack import Decoder, Encoder
from hpack.exceptions import HPACKError

from soak.fuzz.frames_fuzz import literal
from soak.fuzz.fuzz_process import Failure, child_main, run_children
from soak.fuzz.mutation import mutated
from soak.tally import Tally
from transport.http2.frames import ConnectionFault
from transport.http2.headers import MAX_LIST_BYTES, HeaderReader, Headers, list_size

_MODULE = "soak.fuzz.headers_fuzz"
_MOST_FIELDS = 6
# Then the dynamic table has been full, and blocks have been forgotten.
_MOST_BLOCKS = 100
_RECENT_BLOCKS = 8


def run(tally: Tally, folder: Path) -> None:
    """Count blocks that both readers read alike, in several processes."""
    run_children(tally, _MODULE)


def corpus() -> list[bytes]:
    """Fields of every representation, and changes of the dynamic table's size."""
    incremental = b"\x40\x01a\x0abbbbbbbbbb"
    indexed_name = b"\x44\x05/echo"
    huffman = Encoder().encode([("x-trace", "0123456789abcdef"), (":path", "/a/b")], huffman=True)
    long = Encoder().encode([("long", "v" * 1500)], huffman=False)
    table_sizes = [b"\x20", b"\x3f\x21", b"\x3f\xe1\x1f"]
    indexed = [bytes((0x80 | index,)) for index in (2, 3, 6, 16, 62, 63, 70)]
    not_latin = b"\x00\x03a\xff\xfe\x02\xc3\x28"
    return [
        literal("grpc-timeout", "1S"),
        literal("x-bin", "AAEC"),
        literal("", ""),
        incremental,
        indexed_name,
        huffman,
        long,
        not_latin,
        *table_sizes,
        *indexed,
    ]


class Pair:
    """The transport's reader and hpack's, of the same connection."""

    def __init__(self, max_bytes: int = MAX_LIST_BYTES) -> None:
        self.blocks: list[bytes] = []
        self.ended = False
        self._reader: HeaderReader[Headers] = HeaderReader(lambda fields: fields, max_bytes)
        self._max_bytes = max_bytes
        # The transport's reader goes on after its limit, which ends hpack's.
        self._decoder = Decoder(2**31)

    def disagreement(self, block: bytes) -> str | None:
        """Let both read the block; how they differ, if they do."""
        self.blocks.append(block)
        try:
            wanted: Headers | None = tuple(
                (str(field[0], "latin-1"), str(field[1], "latin-1"))
                for field in self._decoder.decode(block, raw=True)
            )
        # hpack reads past the end of some blocks that are cut.
        except (HPACKError, IndexError):
            wanted = None
        try:
            read: Headers | None = self._reader.read(block)
        except ConnectionFault:
            read = None
        self.ended = wanted is None or read is None
        if read is not None and list_size(read) > self._max_bytes:
            # The fields up to the limit and the first one beyond; what follows is not all checked.
            wanted = read if wanted is None else wanted[: len(read)]
        return None if read == wanted else f"got {read}, hpack reads {wanted}"


def drawn(generator: random.Random, fields: list[bytes], recent: list[bytes]) -> bytes:
    """A block of some fields, maybe damaged, or one of the recent ones again."""
    if recent and generator.random() < 0.3:
        return generator.choice(recent)
    block = b"".join(generator.choices(fields, k=generator.randint(1, _MOST_FIELDS)))
    return mutated(generator, [block]) if generator.random() < 0.5 else block


def main() -> int:
    """Fuzz until the time or the count is over."""
    fields = corpus()
    pair = Pair()

    def trial(generator: random.Random, _: int) -> Failure | None:
        nonlocal pair
        if pair.ended or len(pair.blocks) >= _MOST_BLOCKS:
            pair = Pair(generator.choice((200, MAX_LIST_BYTES)))
        block = drawn(generator, fields, pair.blocks[-_RECENT_BLOCKS:])
        try:
            failure = pair.disagreement(block)
        except Exception as error:
            failure = repr(error)
        if failure is None:
            return None
        pair.ended = True
        return "|".join(block.hex() for block in pair.blocks), failure

    return child_main(_MODULE, __doc__, trial)


if __name__ == "__main__":
    sys.exit(main())
