"""Read the values of options."""

import argparse


def positive(text: str) -> int:
    """Integer of at least 1."""
    value = int(text) if text.isascii() and text.isdigit() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}; wanted an integer of at least 1")
    return value


def seconds(text: str) -> float:
    """Seconds over 0."""
    return over_zero(text, "seconds")


def over_zero(text: str, what: str = "a number") -> float:
    """Finite number over 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"got {text!r}; wanted {what} over 0")
    return value


def concurrencies(text: str) -> tuple[int, ...]:
    """`1,4,16`, or the powers of two in `1:16` with its end."""
    first, colon, last = text.partition(":")
    if not colon:
        return tuple(positive(part) for part in text.split(","))
    start, stop = positive(first), positive(last)
    if start > stop:
        raise argparse.ArgumentTypeError(f"got {text!r}; wanted FIRST:LAST, rising")
    values = []
    while start < stop:
        values.append(start)
        start *= 2
    return (*values, stop)


def rates(text: str) -> tuple[float, ...]:
    """`50,80.5`, or start:stop:step, both ends included."""
    if ":" not in text:
        return tuple(over_zero(part) for part in text.split(","))
    parts = [over_zero(part) for part in text.split(":")]
    if len(parts) != 3 or parts[0] > parts[1]:
        raise argparse.ArgumentTypeError(f"got {text!r}; wanted START:STOP:STEP, rising")
    start, stop, step = parts
    # A step that is no binary fraction must not lose the last rate.
    return tuple(start + number * step for number in range(int((stop - start) / step + 1e-9) + 1))
