"""Read tokens with their permissions, and find what the one that came may do."""

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from server.errors import StartError

# As RFC 6750 writes them.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_FEWEST_CHARACTERS = 16


class Permission(StrEnum):
    """What a token may be good for."""

    INFER = "infer"
    CONTROL = "control"
    SHARED_MEMORY = "shared-memory"


@dataclass(frozen=True, slots=True)
class Token:
    """The SHA-256 of a token, and what it is good for."""

    digest: bytes
    permissions: frozenset[Permission]


def parse(text: str) -> tuple[Token, ...]:
    """Tokens of lines `TOKEN [PERMISSION,PERMISSION]`; without permissions, it may infer.

    Empty lines and those that start with # do not count. StartError names the line at fault, and
    never what is on it.
    """
    # The beginning of a token is a token, too, and that of a file may lack some.
    if not text.endswith("\n"):
        raise StartError("the last line has no end: the file is empty, or not written to its end")
    found: dict[bytes, Token] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) > 2:
            raise StartError(f"line {number} has {len(words)} words; wanted TOKEN [PERMISSIONS]")
        if not _TOKEN.fullmatch(words[0]) or len(words[0]) < _FEWEST_CHARACTERS:
            raise StartError(
                f"line {number} starts with no token; wanted at least {_FEWEST_CHARACTERS} "
                "characters of A-Z a-z 0-9 . _ ~ + / -, which = may follow"
            )
        token = Token(_digest(words[0]), _permissions(number, words[1:]))
        if token.digest in found:
            raise StartError(f"line {number} repeats the token of another line")
        found[token.digest] = token
    return tuple(found.values())


def permissions(tokens: Sequence[Token], came: str) -> frozenset[Permission] | None:
    """What the token that came is good for, None if it is none of them.

    The time it takes tells neither which one it is nor how much of it is right.
    """
    digest = _digest(came)
    found = None
    for token in tokens:
        if hmac.compare_digest(token.digest, digest):
            found = token.permissions
    return found


def _permissions(number: int, words: Sequence[str]) -> frozenset[Permission]:
    if not words:
        return frozenset({Permission.INFER})
    try:
        return frozenset(Permission(name) for name in words[0].split(","))
    except ValueError:
        raise StartError(
            f"line {number} has unknown permissions; there are {', '.join(Permission)}"
        ) from None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
