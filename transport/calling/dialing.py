"""Connect to a target, and keep a connection to it: with back-off, from a thread that may block."""

import logging
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable
from enum import Enum

from transport import tls
from transport.addresses import UNIX, parse
from transport.calling.client_connection import ClientConnection
from transport.http2.pipes import Pipe, PlainPipe, TlsPipe
from transport.loop import Loop
from transport.options import ConnectionOptions
from transport.workers import Workers

_log = logging.getLogger(__name__)

_DNS = "dns:"
_BACKOFF_GROWTH = 1.6
_BACKOFF_JITTER = 0.2


def target_host(target: str) -> str:
    """The host of a target, as a certificate names it."""
    if target.startswith(UNIX):
        return "localhost"
    return parse(_plain(target))[0]


def authority(target: str) -> str:
    """The :authority of calls to a target."""
    return "localhost" if target.startswith(UNIX) else _plain(target)


def _plain(target: str) -> str:
    return target.removeprefix(_DNS).lstrip("/") if target.startswith(_DNS) else target


def dial(
    target: str, timeout_s: float, context: ssl.SSLContext | None, server_name: str | None
) -> socket.socket:
    """A connected socket, with TLS where there is a context; OSError or ValueError if not."""
    if target.startswith(UNIX):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(timeout_s)
        try:
            sock.connect("/" + target.removeprefix(UNIX).lstrip("/"))
        except OSError:
            sock.close()
            raise
    else:
        sock = socket.create_connection(parse(_plain(target)), timeout_s)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if context is not None:
        try:
            sock = context.wrap_socket(sock, server_hostname=server_name or target_host(target))
            protocol = sock.selected_alpn_protocol()
            if protocol != tls.ALPN:
                raise OSError(f"TLS: got ALPN {protocol!r}, expected {tls.ALPN!r}")
        except (OSError, ValueError):
            sock.close()
            raise
    sock.setblocking(False)
    return sock


class State(Enum):
    """Where a subchannel stands."""

    IDLE = "idle"
    CONNECTING = "connecting"
    READY = "ready"
    FAILED = "failed"


class Subchannel:
    """One connection to one target, made when it is wanted and made again when it was lost."""

    def __init__(
        self,
        target: str,
        loop: Loop,
        scratch: memoryview,
        unpackers: Workers,
        options: ConnectionOptions,
        tls_context: ssl.SSLContext | None,
        server_name: str | None,
        backoff_s: tuple[float, float],
        connect_s: float,
        on_change: Callable[["Subchannel"], None],
    ) -> None:
        self.target = target
        self.state = State.IDLE
        self.failure = ""
        self.connection: ClientConnection | None = None
        self._loop = loop
        self._scratch = scratch
        self._unpackers = unpackers
        self._options = options
        self._tls_context = tls_context
        self._server_name = server_name
        self._backoff_s = backoff_s
        self._connect_s = connect_s
        self._on_change = on_change
        self._changed = threading.Condition()
        self._wanted = False
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="grpc-connect", daemon=True)
        self._thread.start()

    def want(self) -> None:
        """Connect unless that is so or under way; any thread."""
        with self._changed:
            if self.connection is None and not self._wanted:
                self._wanted = True
                self._changed.notify_all()

    def close(self) -> None:
        """Connect no more, and end the connection."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            connection = self.connection
        if connection is not None:
            self._loop.call_soon(lambda: connection.close("channel closed"))

    def _run(self) -> None:
        failures = 0
        while True:
            with self._changed:
                while not self._closed and (not self._wanted or self.connection is not None):
                    self._changed.wait()
                if self._closed:
                    return
                self._wanted = False
            self._set(State.CONNECTING)
            began_s = time.monotonic()
            if self._connect():
                failures = 0
                continue
            if self._closed:
                return
            failures += 1
            self._set(State.FAILED)
            self._back_off(failures, began_s)

    def _back_off(self, failures: int, began_s: float) -> None:
        first_s, most_s = self._backoff_s
        backoff_s = min(first_s * _BACKOFF_GROWTH ** (failures - 1), most_s)
        backoff_s *= random.uniform(1 - _BACKOFF_JITTER, 1 + _BACKOFF_JITTER)
        end_s = began_s + backoff_s
        with self._changed:
            while not self._closed and (left_s := end_s - time.monotonic()) > 0:
                self._changed.wait(left_s)

    def _connect(self) -> bool:
        try:
            sock = dial(self.target, self._connect_s, self._tls_context, self._server_name)
        except (OSError, ValueError) as error:
            self.failure = f"failed to connect to {self.target}: {error}"
            return False
        pipe: Pipe = TlsPipe(sock) if isinstance(sock, ssl.SSLSocket) else PlainPipe(sock)
        connection = ClientConnection(
            self._loop,
            sock,
            pipe,
            self._options,
            self._scratch,
            self.target,
            self._unpackers,
            self._ready,
            self._ended,
        )
        with self._changed:
            if self._closed:
                sock.close()
                return False
            self.connection = connection
            self._loop.call_soon(connection.begin)
            while self.connection is connection and not connection.ready and not self._closed:
                self._changed.wait()
            return connection.ready

    def _ready(self, connection: ClientConnection) -> None:
        with self._changed:
            self._changed.notify_all()
        self._set(State.READY)

    def _ended(self, connection: ClientConnection, text: str) -> None:
        with self._changed:
            if self.connection is not connection:
                return
            self.connection = None
            was_ready = connection.ready
            self.failure = f"failed to connect to {self.target}: {text}"
            self._changed.notify_all()
        if was_ready:
            self._set(State.IDLE)

    def _set(self, state: State) -> None:
        self.state = state
        self._on_change(self)
