"""The first bytes of a server's connection: HTTP/2's preface, or a clear answer to others."""

import contextlib
import socket
from collections.abc import Callable

from transport.http2 import frames
from transport.http2.frames import PREFACE, ErrorCode
from transport.http2.pipes import Pipe
from transport.loop import READ, Loop

_TEXT = b"This port speaks gRPC, which needs HTTP/2 from its first byte on.\n"
_HTTP_1_ANSWER = (
    b"HTTP/1.1 505 HTTP Version Not Supported\r\nConnection: close\r\n"
    b"Content-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s" % (len(_TEXT), _TEXT)
)
# A client that speaks TLS to a port without it finds out by any answer.
_OTHER_ANSWER = frames.settings({}) + frames.goaway(
    0, ErrorCode.PROTOCOL_ERROR, "expected HTTP/2 without TLS"
)
# Of a request line: enough to see HTTP/1.
_MOST_BYTES = 8 * 1024
_METHODS = (b"GET", b"POST", b"PUT", b"HEAD", b"DELETE", b"OPTIONS", b"PATCH", b"CONNECT", b"TRACE")


class Greeting:
    """Waits for the preface of one connection, in the I/O thread."""

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        pipe: Pipe,
        timeout_s: float,
        done: Callable[[str], None],
    ) -> None:
        """`done` gets "", or why the connection was closed; the socket is no longer watched."""
        self._loop = loop
        self._sock = sock
        self._pipe = pipe
        self._done = done
        self._got = b""
        self._open = True
        self._timer = loop.call_later(timeout_s, lambda: self._end("it sends no preface"))
        loop.watch(sock, READ, self._on_event)
        if pipe.pending:
            loop.call_soon(lambda: self._on_event(READ))

    def _on_event(self, events: int) -> None:
        while self._open:
            buffer = bytearray(len(PREFACE) - len(self._got))
            try:
                count = self._pipe.receive(memoryview(buffer))
            except OSError as error:
                self._end(str(error))
                return
            if count is None:
                return
            self._got += buffer[:count]
            if self._got == PREFACE:
                self._end("")
            elif not count:
                self._end("it closed before its preface")
            elif not PREFACE.startswith(self._got):
                self._refuse()

    def _refuse(self) -> None:
        http_1 = self._got.split(b" ")[0].upper() in _METHODS
        answer = _HTTP_1_ANSWER if http_1 else _OTHER_ANSWER
        try:
            self._pipe.send([answer], len(answer))
        except OSError as error:
            self._end(str(error))
            return
        self._end("it speaks HTTP/1" if http_1 else "it does not speak HTTP/2")

    def close_soon(self) -> None:
        """Give up; any thread."""
        self._loop.call_soon(lambda: self._end("the server stops"))

    def _end(self, failure: str) -> None:
        if not self._open:
            return
        self._open = False
        self._timer.cancel()
        self._loop.forget(self._sock)
        if failure:
            # What is unread would turn the end into a reset that overtakes the answer.
            with contextlib.suppress(OSError):
                self._pipe.receive(memoryview(bytearray(_MOST_BYTES)))
            self._sock.close()
        self._done(failure)
