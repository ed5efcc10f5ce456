"""Damage messages at random, in ways that have broken parsers."""

import random
from collections.abc import Callable, Sequence

# Lengths and tags at the limits of varints, signed and unsigned integers.
_INTERESTING = (
    b"\x00",
    b"\x01",
    b"\x7f",
    b"\x80",
    b"\xff",
    b"\x80\x01",
    b"\xff\xff\xff\xff\x07",
    b"\xff\xff\xff\xff\x0f",
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"\xff" * 10,
    b"\x0b",
    b"\x0c",
    b"\x3a\x00",
)
_LONGEST_PIECE = 16


def mutated(generator: random.Random, seeds: Sequence[bytes]) -> bytes:
    """One of the seeds, damaged one to four times; the seeds must not be empty."""
    data = bytearray(generator.choice(seeds))
    for _ in range(generator.choice((1, 1, 2, 4))):
        generator.choice(_WAYS)(generator, data, seeds)
    return bytes(data)


_Way = Callable[[random.Random, bytearray, Sequence[bytes]], None]


def _flip(generator: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    if data:
        data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)


def _replace(generator: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    if data:
        data[generator.randrange(len(data))] = generator.randrange(256)


def _cut(generator: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    del data[generator.randrange(len(data) + 1) :]


def _remove(generator: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    start, stop = _piece(generator, data)
    del data[start:stop]


def _repeat(generator: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    start, stop = _piece(generator, data)
    data[stop:stop] = data[start:stop]


def _insert(generator: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    at = generator.randrange(len(data) + 1)
    data[at:at] = generator.choice(_INTERESTING)


def _overwrite(generator: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    piece = generator.choice(_INTERESTING)
    at = generator.randrange(len(data) + 1)
    data[at : at + len(piece)] = piece


def _splice(generator: random.Random, data: bytearray, seeds: Sequence[bytes]) -> None:
    """Append a part of another message: protobuf merges fields that are sent twice."""
    other = generator.choice(seeds)
    data[generator.randrange(len(data) + 1) :] = other[generator.randrange(len(other) + 1) :]


def _append(generator: random.Random, data: bytearray, seeds: Sequence[bytes]) -> None:
    data += generator.choice(seeds)


def _piece(generator: random.Random, data: bytearray) -> tuple[int, int]:
    start = generator.randrange(len(data) + 1)
    return start, min(len(data), start + generator.randint(1, _LONGEST_PIECE))


_WAYS: tuple[_Way, ...] = (
    _flip,
    _replace,
    _cut,
    _remove,
    _repeat,
    _insert,
    _overwrite,
    _splice,
    _append,
)
