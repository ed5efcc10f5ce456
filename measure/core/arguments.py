"""Parse the values of options that several commands share."""

import argparse
import math
from collections.abc import Callable, Collection, Sequence

from client.connection import addresses
from client.errors import UsageError


def positive(text: str) -> int:
    """Return an integer of at least 1."""
    value = int(text) if text.isascii() and text.isdigit() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected an integer of at least 1")
    return value


def milliseconds(text: str) -> float:
    """Return a time over 0, in seconds."""
    return over_zero(text, "milliseconds") / 1000


def over_zero(text: str, what: str = "a number") -> float:
    """Return a finite number over 0."""
    value = _number(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected {what} over 0")
    return value


def share(text: str) -> float:
    """Return a number from 0 to 1."""
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a share from 0 to 1")
    return value


def seconds(text: str) -> float:
    """Return a time over 0."""
    return over_zero(text, "seconds")


def sizes(text: str) -> tuple[int, ...]:
    """Return batch sizes separated by commas."""
    return tuple(positive(part) for part in text.split(","))


def concurrencies(text: str) -> tuple[int, ...]:
    """Return numbers of requests in flight: `1,4,16`, or 1, 2, 4, 8, 16 for `1:16`."""
    first, colon, last = text.partition(":")
    if not colon:
        return sizes(text)
    start, stop = positive(first), positive(last)
    if start > stop:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected FIRST:LAST, rising")
    values = []
    while start < stop:
        values.append(start)
        start *= 2
    return (*values, stop)


def rates(text: str) -> tuple[float, ...]:
    """Return rates per second: `50,80.5`, or START:STOP:STEP with both ends."""
    if ":" not in text:
        return tuple(over_zero(part) for part in text.split(","))
    parts = [over_zero(part) for part in text.split(":")]
    if len(parts) != 3 or parts[0] > parts[1]:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected START:STOP:STEP, rising")
    start, stop, step = parts
    # A step that is not a binary fraction must not lose the last rate.
    return tuple(start + number * step for number in range(int((stop - start) / step + 1e-9) + 1))


def modes(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """Return a parser of a comma-separated list of modes from `known`, each at most once."""

    def parse(text: str) -> tuple[str, ...]:
        names = tuple(text.split(","))
        if not set(names) <= set(known) or len(set(names)) != len(names):
            raise argparse.ArgumentTypeError(f"got {text!r}, expected some of {','.join(known)}")
        return names

    return parse


def some_of(text: str, known: Collection[str]) -> tuple[str, ...]:
    """Split a comma-separated list of names from `known`, each at most once."""
    names = tuple(dict.fromkeys(text.split(",")))
    if not set(names) <= set(known):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected some of {','.join(known)}")
    return names


def address(text: str) -> str:
    """Return server addresses, files with their whole path; reject invalid ones."""
    try:
        parsed = addresses.parse(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    # The sending processes run in another working directory.
    return ",".join(map(addresses.absolute, parsed))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
