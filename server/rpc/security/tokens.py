"""Read tokens with their permissions, and look a call's token up."""

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
    """Permissions that a token may have."""

    INFER = "infer"
    CONTROL = "control"
    SHARED_MEMORY = "shared-memory"


@dataclass(frozen=True, slots=True)
class Token:
    """The SHA-256 of a token, and its permissions."""

    digest: bytes
    permissions: frozenset[Permission]


def parse(text: str) -> tuple[Token, ...]:
    """Tokens of lines `TOKEN [PERMISSION,PERMISSION]`; without permissions, it may infer.

    Empty lines and those that start with # do not count. StartError names the line at fault, and
    never what is on it.
    """
    # A truncated file could hold a truncated token, which would be valid.
    if not text.endswith("\n"):
        raise StartError("the last line has no newline: the file is empty or truncated")
    by_digest: dict[bytes, Token] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) > 2:
            raise StartError(f"line {number} has {len(words)} words, expected TOKEN [PERMISSIONS]")
        if not _TOKEN.fullmatch(words[0]) or len(words[0]) < _FEWEST_CHARACTERS:
            raise StartError(
                f"line {number} does not start with a token, expected at least "
                f"{_FEWEST_CHARACTERS} characters of A-Z a-z 0-9 . _ ~ + / -, then optional ="
            )
        token = Token(_digest(words[0]), _permissions(number, words[1:]))
        if token.digest in by_digest:
            raise StartError(f"line {number} repeats the token of another line")
        by_digest[token.digest] = token
    return tuple(by_digest.values())


def permissions(tokens: Sequence[Token], text: str) -> frozenset[Permission] | None:
    """Permissions of the token `text`, None if it is not one of `tokens`.

    The time it takes reveals neither which token matches nor how many characters do.
    """
    digest = _digest(text)
    permitted = None
    for token in tokens:
        if hmac.compare_digest(token.digest, digest):
            permitted = token.permissions
    return permitted


def _permissions(number: int, words: Sequence[str]) -> frozenset[Permission]:
    if not words:
        return frozenset({Permission.INFER})
    try:
        return frozenset(Permission(name) for name in words[0].split(","))
    except ValueError:
        raise StartError(
            f"line {number} has unknown permissions, expected some of {', '.join(Permission)}"
        ) from None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
