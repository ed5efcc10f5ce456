"""Exchange messages between the server and the process that reads models for it.

A message is an object of JSON and any number of blocks of bytes. Both sides bound what they take
before they make room for it.
"""

import json
import socket
import struct
import time
from collections.abc import Mapping
from typing import Any

_MOST_JSON_BYTES = 4 * 2**20
_SIZES = "sizes"
_LENGTH = struct.Struct("=Q")


class Ended(Exception):
    """The other side has closed the connection, or sent what is no message."""


def send(connection: socket.socket, fields: Mapping[str, object], *blocks: bytes) -> None:
    """Send a message; Ended, or TimeoutError after the time-out of the connection."""
    text = json.dumps({**fields, _SIZES: [len(block) for block in blocks]}).encode()
    try:
        for part in (_LENGTH.pack(len(text)), text, *blocks):
            connection.sendall(part)
    except TimeoutError:
        raise
    except OSError:
        raise Ended from None


def receive(
    connection: socket.socket, most_bytes: int, end_s: float | None = None
) -> tuple[dict[str, Any], list[bytes]]:
    """Wait for a message, with blocks of at most `most_bytes` together.

    Ended; TimeoutError at `end_s`, a monotonic time.
    """
    (length,) = _LENGTH.unpack(_read(connection, _LENGTH.size, end_s))
    if length > _MOST_JSON_BYTES:
        raise Ended
    fields = json.loads(_read(connection, length, end_s))
    sizes = fields.pop(_SIZES)
    if sum(sizes) > most_bytes:
        raise Ended
    return fields, [_read(connection, size, end_s) for size in sizes]


def _read(connection: socket.socket, size: int, end_s: float | None) -> bytes:
    data = bytearray(size)
    room = memoryview(data)
    while room:
        if end_s is not None:
            left_s = end_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            connection.settimeout(left_s)
        try:
            count = connection.recv_into(room)
        except TimeoutError:
            raise
        except OSError:
            raise Ended from None
        if not count:
            raise Ended
        room = room[count:]
    return bytes(data)
