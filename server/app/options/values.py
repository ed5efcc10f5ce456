"""Parse the values of options; ValueError has the expected form."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from command_line import paths

INT32_MAX = 2**31 - 1  # gRPC and ONNX Runtime count no further, nor do waits


def integer(least: int, most: int = INT32_MAX) -> Callable[[str], int]:
    """Parse an integer within bounds."""

    def parse(text: str) -> int:
        plain = text.isascii() and text.isdigit() and len(text) < 20
        if not (plain and least <= int(text) <= most):
            raise ValueError(f"an integer from {least} to {most}")
        return int(text)

    return parse


def duration(least: float = 0) -> Callable[[str], float]:
    """Parse seconds from `least` on."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not least <= value <= INT32_MAX:
            raise ValueError(f"seconds from {least} to {INT32_MAX}")
        return value

    return parse


def one_of(**choices: Any) -> Callable[[str], Any]:
    """Parse a name of `choices` to its value."""

    def parse(text: str) -> Any:
        if text not in choices:
            raise ValueError(f"one of {', '.join(choices)}")
        return choices[text]

    return parse


# Of its own name, because such an option may be given without a value.
on_or_off = one_of(on=True, off=False)


def share(**named: Any) -> Callable[[str], Any]:
    """Parse 1/N to N, and the other names of shares to their values."""
    expected = f"one of {', '.join(named)}, or 1/N with N from 1 to {INT32_MAX}"

    def parse(text: str) -> Any:
        if text in named:
            return named[text]
        one, slash, count = text.partition("/")
        try:
            if one == "1" and slash:
                return integer(1)(count)
        except ValueError:
            pass
        raise ValueError(expected)

    return parse


def collector(text: str) -> str:
    """Parse the address of an OTLP collector."""
    if not re.fullmatch(r"(https?://)?([^/\s:\[\]]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}", text):
        raise ValueError("HOST:PORT, http://HOST:PORT or https://HOST:PORT")
    return text


def path(what: str) -> Callable[[str], Path]:
    """Parse a path on this machine; `what` is the expected form."""

    def parse(text: str) -> Path:
        if not text:
            raise ValueError(what)
        hint = paths.uri_hint(text)
        if hint is not None:
            raise ValueError(hint)
        return Path(text)

    return parse


def prefix(text: str) -> str:
    """Parse the prefix of shared-memory keys."""
    if not re.fullmatch("[A-Za-z0-9_.-]{1,200}", text):
        raise ValueError("up to 200 letters, digits, '_', '.' and '-'")
    return text


def auto_or(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Parse `auto` to None, else as `parse`."""

    def parse_or_none(text: str) -> Any:
        if text == "auto":
            return None
        try:
            return parse(text)
        except ValueError as error:
            raise ValueError(f"auto or {error}") from None

    return parse_or_none


def names(text: str) -> tuple[str, ...]:
    """Parse names separated by commas."""
    names = tuple(text.split(","))
    if not all(names):
        raise ValueError("names separated by commas")
    return names
