"""A connected socket as the connection sees it: plain, or with TLS by the standard library.

Reads happen in the I/O thread, writes in any thread, one at a time. OpenSSL does not allow both at
once on one TLS connection, so a lock keeps them apart there.
"""

import select
import socket
import ssl
import struct
import threading
from collections.abc import Sequence
from typing import Protocol

from transport.http2.frames import Buffer

_NOW = socket.MSG_DONTWAIT
_TIMEVAL = struct.Struct("@ll")
# The longest that a thread stays in the kernel to send.
_WAIT_MS = 500
# Linux takes no more buffers in one sendmsg.
MAX_BUFFERS = 512
# Up to here joining costs less than passing the buffers apart.
_JOIN_BYTES = 16 * 1024
# What one write of TLS takes: a record each 16 KiB, some of them in one call.
_TLS_WRITE_BYTES = 128 * 1024


class Pipe(Protocol):
    """What a connection reads from and writes to."""

    sock: socket.socket
    # Whether a send that takes less than all means that no more would be taken now.
    short_when_full: bool

    def receive(self, into: memoryview) -> int | None:
        """Bytes received; 0 at the end, None when there are none now."""

    def receive_two(self, into: memoryview, after: memoryview) -> int | None:
        """As `receive`, into two buffers one after the other, or into the first only."""

    def send(self, buffers: Sequence[Buffer], size: int) -> int:
        """Bytes of `buffers` (`size` together) that were taken; 0 when none can be now."""

    def send_waiting(self, buffers: Sequence[Buffer], size: int) -> int:
        """As `send`, and wait a moment for the socket to take them."""

    @property
    def pending(self) -> bool:
        """Whether received bytes wait that the socket does not show."""


class PlainPipe:
    """A TCP or Unix socket."""

    pending = False
    short_when_full = True

    def __init__(self, sock: socket.socket) -> None:
        # Waiting within the kernel costs less than being told by it when to go on. All other calls
        # say that they do not wait.
        sock.setblocking(True)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL.pack(0, _WAIT_MS * 1000))
        self.sock = sock
        self._recv_into = sock.recv_into
        self._recvmsg_into = sock.recvmsg_into

    def receive(self, into: memoryview) -> int | None:
        """See Pipe."""
        try:
            return self._recv_into(into, 0, _NOW)
        except (BlockingIOError, InterruptedError):
            return None

    def receive_two(self, into: memoryview, after: memoryview) -> int | None:
        """See Pipe."""
        try:
            return self._recvmsg_into((into, after), 0, _NOW)[0]
        except (BlockingIOError, InterruptedError):
            return None

    def send(self, buffers: Sequence[Buffer], size: int) -> int:
        """See Pipe."""
        return self._send(buffers, size, _NOW)

    def send_waiting(self, buffers: Sequence[Buffer], size: int) -> int:
        """See Pipe."""
        return self._send(buffers, size, 0)

    def _send(self, buffers: Sequence[Buffer], size: int, flags: int) -> int:
        try:
            if len(buffers) == 1:
                return self.sock.send(buffers[0], flags)
            if size <= _JOIN_BYTES:
                return self.sock.send(b"".join(buffers), flags)
            return self.sock.sendmsg(buffers[:MAX_BUFFERS], (), flags)
        except (BlockingIOError, InterruptedError):
            return 0


class TlsPipe:
    """A TLS connection whose handshake is done."""

    short_when_full = False

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self.sock: socket.socket = sock
        self._tls = sock
        self._lock = threading.Lock()
        self._stuck: Buffer | None = None

    @property
    def pending(self) -> bool:
        """See Pipe."""
        return self._tls.pending() > 0

    def receive(self, into: memoryview) -> int | None:
        """See Pipe."""
        with self._lock:
            try:
                return self._tls.recv_into(into)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return None
            except ssl.SSLError as error:
                raise ConnectionResetError(str(error)) from error

    def receive_two(self, into: memoryview, after: memoryview) -> int | None:
        """See Pipe."""
        return self.receive(into)

    def send_waiting(self, buffers: Sequence[Buffer], size: int) -> int:
        """See Pipe."""
        count = self.send(buffers, size)
        if not count:
            poll = select.poll()
            poll.register(self.sock, select.POLLOUT)
            poll.poll(_WAIT_MS)
        return count

    def send(self, buffers: Sequence[Buffer], size: int) -> int:
        """See Pipe."""
        # A write that OpenSSL could not end must be repeated with the same bytes.
        data = self._stuck
        if data is None:
            data = _first_piece(buffers)
        try:
            with self._lock:
                count = self._tls.send(data)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            self._stuck = data
            return 0
        except ssl.SSLError as error:
            raise ConnectionResetError(str(error)) from error
        self._stuck = None
        return count


def _first_piece(buffers: Sequence[Buffer]) -> Buffer:
    first = buffers[0]
    if len(first) >= _JOIN_BYTES:
        return memoryview(first)[:_TLS_WRITE_BYTES]
    pieces: list[Buffer] = []
    size = 0
    for buffer in buffers:
        room = _JOIN_BYTES - size
        if room <= 0:
            break
        pieces.append(memoryview(buffer)[:room])
        size += min(room, len(buffer))
    return b"".join(pieces)
