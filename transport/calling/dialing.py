"""Connect to a server, and keep a connection to it: with back-off, from a thread that may block."""

import logging
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable
from enum import Enum

from transport import tls
from transport.addresses import UNIX, parse, unix_path
from transport.calling.client_connection import ClientConnection
from transport.calling.failures import ClosedEarly, Failure, NotHttp2, NotServing
from transport.calling.health import Health
from transport.calling.resolving import Server
from transport.http2.frames import ConnectionFault
from transport.http2.pipes import Pipe, PlainPipe, TlsPipe
from transport.loop import Loop
from transport.options import ConnectionOptions
from transport.workers import Workers

_log = logging.getLogger(__name__)

_BACKOFF_GROWTH = 1.6
_BACKOFF_JITTER = 0.2
# Between two attempts, also where the server takes each connection and closes it.
_LEAST_BETWEEN_S = 0.05


def dial(
    server: Server, timeout_s: float, context: ssl.SSLContext | None, server_name: str | None
) -> socket.socket:
    """A connected socket, with TLS where there is a context; OSError or ValueError if not."""
    *others, last = server.ends
    for end in others:
        try:
            sock = _connected(end, timeout_s)
            break
        except OSError:
            continue
    else:
        sock = _connected(last, timeout_s)
    if context is not None:
        try:
            sock = context.wrap_socket(sock, server_hostname=server_name or server.host)
            protocol = sock.selected_alpn_protocol()
            if protocol != tls.ALPN:
                raise NotHttp2(f"TLS: got ALPN {protocol!r}, expected {tls.ALPN!r}")
        except (OSError, ValueError):
            sock.close()
            raise
    sock.setblocking(False)
    return sock


def _connected(end: str, timeout_s: float) -> socket.socket:
    if not end.startswith(UNIX):
        sock = socket.create_connection(parse(end), timeout_s)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(timeout_s)
    try:
        sock.connect(unix_path(end))
    except OSError:
        sock.close()
        raise
    return sock


class State(Enum):
    """Where a subchannel stands."""

    IDLE = "idle"
    CONNECTING = "connecting"
    READY = "ready"
    FAILED = "failed"


class Subchannel:
    """One connection to one server, made when it is wanted and made again when it was lost."""

    def __init__(
        self,
        server: Server,
        loop: Loop,
        scratch: memoryview,
        unpackers: Workers,
        options: ConnectionOptions,
        tls_context: ssl.SSLContext | None,
        server_name: str | None,
        backoff_s: tuple[float, float],
        connect_s: float,
        health_block: bytes | None,
        on_change: Callable[["Subchannel"], None],
    ) -> None:
        """With `health_block`, headers of `health.PATH`, the server is asked whether it serves.

        That begins with `watch_health`.
        """
        self.server = server
        self.state = State.IDLE
        self.failure: Failure | None = None
        self.connection: ClientConnection | None = None
        self._loop = loop
        self._scratch = scratch
        self._unpackers = unpackers
        self._options = options
        self._tls_context = tls_context
        self._server_name = server_name
        self._backoff_s = backoff_s
        self._connect_s = connect_s
        self._health_block = health_block
        self._watching = False
        self._health: Health | None = None
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

    def watch_health(self) -> None:
        """From now on, take a server that says it does not serve for one that has failed."""
        with self._changed:
            if self._watching or self._health_block is None:
                return
            self._watching = True
            connection = self.connection
            if connection is None or not connection.ready:
                return
        # It serves until it says otherwise: calls go there already.
        self._begin_watch(connection)

    def close(self) -> None:
        """Connect no more, and end the connection."""
        connection = self._give_up()
        if connection is not None:
            self._loop.call_soon(lambda: connection.close("channel closed"))

    def retire(self) -> None:
        """Connect no more, and end the connection after the calls that are under way."""
        connection = self._give_up()
        if connection is not None:
            self._loop.call_soon(connection.retire)

    def _give_up(self) -> ClientConnection | None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            connection = self.connection
        if self._health is not None:
            self._health.stop()
        return connection

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
            failure = self._connect()
            if self._closed:
                return
            if failure is None:
                failures = 0
                self._sleep_until(began_s + _LEAST_BETWEEN_S)
                continue
            failures += 1
            self.failure = Failure(self.server.name, failure)
            self._set(State.FAILED)
            self._sleep_until(began_s + self._backoff(failures))
            # The next call waits for an attempt, instead of failing for what was true long ago.
            self._set(State.IDLE)

    def _backoff(self, failures: int) -> float:
        """Seconds between the starts of attempts, after so many failures."""
        first_s, most_s = self._backoff_s
        backoff_s = min(first_s * _BACKOFF_GROWTH ** (failures - 1), most_s)
        return backoff_s * random.uniform(1 - _BACKOFF_JITTER, 1 + _BACKOFF_JITTER)

    def _sleep_until(self, end_s: float) -> None:
        with self._changed:
            while not self._closed and (left_s := end_s - time.monotonic()) > 0:
                self._changed.wait(left_s)

    def _connect(self) -> Exception | None:
        """Connect; why that failed, if it did."""
        try:
            sock = dial(self.server, self._connect_s, self._tls_context, self._server_name)
        except (OSError, ValueError) as error:
            return error
        pipe: Pipe = TlsPipe(sock) if isinstance(sock, ssl.SSLSocket) else PlainPipe(sock)
        connection = ClientConnection(
            self._loop,
            sock,
            pipe,
            self._options,
            self._scratch,
            self.server.name,
            self._unpackers,
            self._ready,
            self._ended,
        )
        connection.serving = not self._watching
        with self._changed:
            if self._closed:
                sock.close()
                return None
            self.connection = connection
            self._loop.call_soon(connection.begin)
            while self.connection is connection and not connection.ready and not self._closed:
                self._changed.wait()
            return None if connection.ready else _cause_of_end(connection)

    def _ready(self, connection: ClientConnection) -> None:
        with self._changed:
            self._changed.notify_all()
            watching = self._watching
        if watching:
            self._begin_watch(connection)
        else:
            self._set(State.READY)

    def _begin_watch(self, connection: ClientConnection) -> None:
        assert self._health_block is not None

        def on_change(serving: bool) -> None:
            self._served(connection, serving=serving)

        with self._changed:
            if self._health is not None and self._health.connection is connection:
                return
            self._health = health = Health(connection, self._health_block, on_change)
        health.begin()

    def _served(self, connection: ClientConnection, *, serving: bool) -> None:
        connection.serving = serving
        if self.connection is not connection:
            return
        if not serving:
            self.failure = Failure(self.server.name, NotServing("reports that it is not serving"))
        self._set(State.READY if serving else State.FAILED)

    def _ended(self, connection: ClientConnection) -> None:
        with self._changed:
            if self.connection is not connection:
                return
            self.connection = None
            was_ready = connection.ready
            self._changed.notify_all()
        if self._health is not None:
            self._health.stop()
        if was_ready:
            self._set(State.IDLE)

    def _set(self, state: State) -> None:
        self.state = state
        self._on_change(self)


def _cause_of_end(connection: ClientConnection) -> Exception:
    """Why a connection ended before the server's settings arrived."""
    cause = connection.cause
    if cause is None:
        return ClosedEarly("connection closed by the peer")
    return NotHttp2(str(cause)) if isinstance(cause, ConnectionFault) else cause
