"""A small HTTP/1.1 server for probes and scrapes: read only, and bounded in every way.

Each connection has a thread; there are few, made at the start. When all are taken, the connection
that has sent nothing for longest is closed for the next one, so slow or silent peers keep nobody
out.
"""

import contextlib
import io
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler

from transport.loop import Loop
from transport.serving.listening import Listener
from transport.workers import Workers

_log = logging.getLogger(__name__)

_MOST_CONNECTIONS = 32
_MOST_HEAD_BYTES = 8 * 1024
# For a request's head from its first byte on, and for the first byte of a connection.
_HEAD_S = 5.0
# Between two requests of one connection: scrapes may be a minute apart.
_IDLE_S = 75.0
_SEND_S = 10.0
# For the rest of what an answer did not wait for.
_LINGER_S = 1.0
_HEAD_END = re.compile(rb"\r?\n\r?\n")
# A value that goes on in the next line, which HTTP has given up.
_FOLDED = re.compile(rb"\n[ \t]")
_READING = ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class Response:
    """What answers a request."""

    status: HTTPStatus
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


# The answer for a path, without its query, and headers; None where nothing has that path.
Answer = Callable[[str, Mapping[str, str]], Response | None]


class HttpServer:
    """Answers GET and HEAD from the start; `close` is the end."""

    def __init__(self, sockets: Sequence[socket.socket], answer: Answer) -> None:
        """Serve listening sockets; `answer` is called from many threads."""
        self._answer = answer
        # Since when each connection has been waited for; None while it is answered.
        self._connections: dict[socket.socket, float | None] = {}
        self._lock = threading.Lock()
        # More than are answered: those that were closed for others may still hold their threads.
        self._threads = Workers(_MOST_CONNECTIONS, _MOST_CONNECTIONS, "management-call")
        self._loop = Loop("management")
        self._listeners = [Listener(self._loop, sock, self._accepted) for sock in sockets]

    def close(self) -> None:
        """End every connection and listen no more."""
        for listener in self._listeners:
            self._loop.call_soon(listener.close)
        self._loop.stop()
        with self._lock:
            for sock in self._connections:
                _shut(sock)
        self._threads.close()

    def _accepted(self, sock: socket.socket) -> None:
        with self._lock:
            if len(self._connections) >= _MOST_CONNECTIONS:
                since_s, quiet = min(
                    ((since_s, each) for each, since_s in self._connections.items() if since_s),
                    key=lambda pair: pair[0],
                    default=(None, sock),
                )
                _shut(quiet)
                if since_s is None:
                    sock.close()
                    return
                del self._connections[quiet]
            self._connections[sock] = time.monotonic()
        if not self._threads.submit(partial(self._serve, sock)):
            self._forget(sock)

    def _serve(self, sock: socket.socket) -> None:
        try:
            _Handler(sock, self._answer, self._mark)
        except OSError:
            pass  # the peer left, or took too long
        except Exception:
            _log.exception("a request to the management port failed")
        finally:
            self._forget(sock)

    def _mark(self, sock: socket.socket, since_s: float | None) -> None:
        """The connection is waited for since then, or is answered."""
        with self._lock:
            if sock in self._connections:
                self._connections[sock] = since_s

    def _forget(self, sock: socket.socket) -> None:
        with self._lock:
            self._connections.pop(sock, None)
        sock.close()


class _Handler(BaseHTTPRequestHandler):
    """One connection; the constructor returns at its end."""

    protocol_version = default_request_version = "HTTP/1.1"

    def __init__(
        self,
        sock: socket.socket,
        answer: Answer,
        mark: Callable[[socket.socket, float | None], None],
    ) -> None:
        self._answer = answer
        self._mark = mark
        self._rest = b""
        self._first_s = _HEAD_S
        self._unread = False
        super().__init__(sock, ("", 0), None)  # type: ignore[arg-type]  # needs no server

    def setup(self) -> None:
        """Write each answer at once; heads are read apart, within their bounds."""
        self.connection = self.request
        self.rfile = io.BytesIO()
        self.wfile = self.connection.makefile("wb")

    def finish(self) -> None:
        """End the connection, so that what was sent is not lost to a reset."""
        self.wfile.close()
        if not self._unread:
            return
        self.connection.shutdown(socket.SHUT_WR)
        end_s = time.monotonic() + _LINGER_S
        while (left_s := end_s - time.monotonic()) > 0:
            self.connection.settimeout(left_s)
            if not self.connection.recv(_MOST_HEAD_BYTES):
                break

    def handle_one_request(self) -> None:
        """Read a request and answer it."""
        self.close_connection = True
        head = self._read_head()
        if head is None:
            return
        self.rfile = io.BytesIO(head)
        self.raw_requestline = self.rfile.readline()
        if _FOLDED.search(head) or not self.raw_requestline.strip():
            self.send_error(HTTPStatus.BAD_REQUEST)
        elif self.parse_request():
            self._respond()

    def _read_head(self) -> bytes | None:
        """The lines before a body; None when the connection ends."""
        sock, got = self.connection, self._rest
        now_s = time.monotonic()
        self._mark(sock, now_s)
        end_s = now_s + (_HEAD_S if got else self._first_s)
        while (found := _HEAD_END.search(got, 0, _MOST_HEAD_BYTES)) is None:
            if len(got) >= _MOST_HEAD_BYTES:
                self._unread = True
                sock.settimeout(_SEND_S)
                self.send_error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
                return None
            left_s = end_s - time.monotonic()
            if left_s <= 0:
                return None
            sock.settimeout(left_s)
            data = sock.recv(4096)
            if not data:
                return None
            if not got:
                end_s = time.monotonic() + _HEAD_S
            got += data
        self._mark(sock, None)
        sock.settimeout(_SEND_S)
        self._rest = got[found.end() :]
        self._first_s = _IDLE_S
        return got[: found.end()]

    def _respond(self) -> None:
        lengths = self.headers.get_all("Content-Length", ["0"])
        if lengths != ["0"] or "Transfer-Encoding" in self.headers:
            # A body is not read; what follows it cannot be told from it.
            self.close_connection = self._unread = True
        path = self.path.partition("?")[0]
        try:
            response = self._answer(path, self.headers)  # type: ignore[arg-type]  # as a mapping
        except Exception:
            _log.exception("a page of the management port failed")
            self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR)
            return
        if response is None:
            response = _plain(HTTPStatus.NOT_FOUND)
        elif self.command not in _READING:
            allow = {"Allow": ", ".join(_READING)}
            response = _plain(HTTPStatus.METHOD_NOT_ALLOWED, allow)
        self._write(response)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what is no request, in words of our own only, and end the connection."""
        self.close_connection = True
        self.command, self.request_version = "", self.protocol_version
        self._write(_plain(HTTPStatus(code)))

    def _write(self, response: Response) -> None:
        self.send_response_only(response.status)
        self.send_header("Content-Type", response.content_type)
        self.send_header("Content-Length", str(len(response.body)))
        for name, value in response.headers.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body)
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: probes come every few seconds, and their bytes are a stranger's."""


def _plain(status: HTTPStatus, headers: Mapping[str, str] | None = None) -> Response:
    text = f"{status.value} {status.phrase}\n".encode()
    return Response(status, text, "text/plain; charset=utf-8", headers or {})


def _shut(sock: socket.socket) -> None:
    """Wake the thread that waits for a connection, which then ends it."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
