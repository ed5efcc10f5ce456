"""Open plain sockets, and read a fixed number of bytes from one."""

import contextlib
import os
import socket
import tempfile
from collections.abc import Iterator

TIMEOUT_S = 120.0
UNIX = "unix:"


@contextlib.contextmanager
def free_address(*, unix: bool) -> Iterator[str]:
    """A local address to listen at, while the block lasts."""
    with tempfile.TemporaryDirectory(prefix="wire-") as folder:
        yield f"{UNIX}{os.path.join(folder, 's')}" if unix else "127.0.0.1:0"


def listen(address: str) -> socket.socket:
    """Listen on HOST:PORT or unix:/path."""
    if address.startswith(UNIX):
        return socket.create_server(address.removeprefix(UNIX), family=socket.AF_UNIX)
    host, _, port = address.rpartition(":")
    return socket.create_server((host, int(port)))


def address_of(listener: socket.socket) -> str:
    """The address of a listener, as `connect` takes it."""
    if listener.family == socket.AF_UNIX:
        return f"{UNIX}{listener.getsockname()}"
    host, port = listener.getsockname()[:2]
    return f"{host}:{port}"


def connect(address: str) -> socket.socket:
    """Connect to HOST:PORT or unix:/path. OSError if nothing listens there."""
    if address.startswith(UNIX):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(TIMEOUT_S)
        connection.connect(address.removeprefix(UNIX))
        return connection
    host, _, port = address.rpartition(":")
    connection = socket.create_connection((host, int(port)), TIMEOUT_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def receive(connection: socket.socket, into: memoryview) -> bool:
    """Fill `into`; return False if the peer has closed the connection."""
    at = 0
    while at < len(into):
        got = connection.recv_into(into[at:])
        if got == 0:
            return False
        at += got
    return True
