"""Addresses that a server listens on, and connections that arrive there."""

import contextlib
import errno
import logging
import os
import socket
import stat
from collections.abc import Callable

from transport.addresses import UNIX, parse
from transport.loop import READ, Loop

_log = logging.getLogger(__name__)

_BACKLOG = 1024
# Connections taken in one turn; those that are open are served in between.
_ACCEPTS = 64
# Without file descriptors or memory, waiting is all that helps.
_RETRY_S = 0.2
_GONE = frozenset({errno.ECONNABORTED, errno.EINTR, errno.EPROTO})


def bind(address: str) -> list[socket.socket]:
    """Listen at an address, on each of those that its name has. OSError or ValueError if not."""
    if address.startswith(UNIX):
        return [_bind_unix(address.removeprefix(UNIX).removeprefix("//"))]
    host, port = parse(address)
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    failure: OSError | None = None
    for family, _, _, _, where in dict.fromkeys(found):
        # A name's addresses share the port that the first was given.
        if sockets and port == 0:
            where = (where[0], sockets[0].getsockname()[1], *where[2:])  # noqa: PLW2901
        try:
            sockets.append(_bind_tcp(family, where))
        except OSError as error:
            failure = error
            if error.errno == errno.EADDRINUSE:
                break
    if failure is not None and (not sockets or failure.errno == errno.EADDRINUSE):
        for sock in sockets:
            sock.close()
        raise failure
    return sockets


def _bind_tcp(family: int, where: tuple[object, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and where[0] != "::":
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        elif family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(where)
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def _bind_unix(path: str) -> socket.socket:
    # A file that a server left behind is replaced, one that is listened on is not.
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.stat(path).st_mode):
            with socket.socket(socket.AF_UNIX) as probe:
                # Where the queue of connections is full, it would wait.
                probe.setblocking(False)
                if probe.connect_ex(path) in (0, errno.EAGAIN):
                    raise OSError(errno.EADDRINUSE, f"{path} is in use by another server")
            os.unlink(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(path)
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def name(sock: socket.socket) -> str:
    """The address of a listening socket, as clients write it."""
    if sock.family == socket.AF_UNIX:
        return f"{UNIX}{sock.getsockname()}"
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if sock.family == socket.AF_INET6 else f"{host}:{port}"


def peer_name(sock: socket.socket) -> str:
    """The other end's address, as gRPC writes it."""
    if sock.family == socket.AF_UNIX:
        return UNIX
    host, port = sock.getpeername()[:2]
    if sock.family == socket.AF_INET6:
        return f"ipv6:%5B{host}%5D:{port}"
    return f"ipv4:{host}:{port}"


class Listener:
    """Takes the connections of one listening socket, in the I/O thread."""

    def __init__(
        self, loop: Loop, sock: socket.socket, on_connection: Callable[[socket.socket], None]
    ) -> None:
        self.sock = sock
        self._loop = loop
        self._on_connection = on_connection
        self._open = True
        self._path = sock.getsockname() if sock.family == socket.AF_UNIX else None
        loop.watch(sock, READ, self._on_event)

    def close(self) -> None:
        """Take no more; the I/O thread calls."""
        if self._open:
            self._open = False
            with contextlib.suppress(KeyError):
                self._loop.forget(self.sock)
            self.sock.close()
            if isinstance(self._path, str) and self._path:
                with contextlib.suppress(OSError):
                    os.unlink(self._path)

    def _on_event(self, events: int) -> None:
        for _ in range(_ACCEPTS):
            try:
                sock, _ = self.sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _GONE:
                    continue
                _log.warning("cannot accept connections for a moment: %s", error)
                self._loop.forget(self.sock)
                self._loop.call_later(_RETRY_S, self._again)
                return
            self._on_connection(sock)

    def _again(self) -> None:
        if self._open:
            self._loop.watch(self.sock, READ, self._on_event)
