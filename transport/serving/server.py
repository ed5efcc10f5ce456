"""A gRPC server: listeners, TLS, limits, draining. Methods answer the calls."""

import contextlib
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from transport import tls
from transport.http2.pipes import Pipe, PlainPipe, TlsPipe
from transport.http2.receiving import SCRATCH_BYTES
from transport.loop import Loop
from transport.options import ServerConnectionOptions
from transport.reporting import report
from transport.serving import listening
from transport.serving.ahead import AheadBytes
from transport.serving.ended_call import OnCallEnded
from transport.serving.greeting import Greeting
from transport.serving.handler import Method
from transport.serving.listening import Listener
from transport.serving.server_connection import ServerConnection
from transport.status import Code, Status
from transport.workers import Workers

_log = logging.getLogger(__name__)

_STOPPED = Status(Code.UNAVAILABLE, "the server stops")
_POLL_S = 0.02
# After the grace period: for the last answers and GOAWAY to be sent.
_LAST_WRITES_S = 2.0


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Limits of a server; those of one connection are in `connection`."""

    connection: ServerConnectionOptions = field(default_factory=ServerConnectionOptions)
    max_connections: int = 10_000
    io_threads: int = 1
    # Unpack messages.
    unpack_threads: int = 2
    max_unpacking: int = 64
    # Sent ahead of messages that have no room yet, by all clients together.
    max_ahead_bytes: int = 256 * 2**20
    # Called, in any thread, after memory of a large message was freed that no handler got.
    on_dropped: Callable[[], object] | None = None
    # Whether calls wait for memory that others hold: then those that stand still are ended sooner.
    pressed: Callable[[], bool] = lambda: False
    # Called once with each call that has ended, in the thread that ended it, which it must not
    # hold up: perhaps an I/O thread.
    on_call_ended: OnCallEnded | None = None
    # 0: the kernel's own choice, which it adapts.
    socket_buffer_bytes: int = 0


class Server:
    """Listens from the start; `stop` is the end."""

    def __init__(
        self,
        addresses: Sequence[str],
        methods: Mapping[str, Method] | Callable[[str], Method | None],
        options: ServerOptions | None = None,
        tls_context: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        """Listen at `addresses`: HOST:PORT, [HOST]:PORT or unix:/path.

        `methods` has what answers a call by its path, such as "/package.Service/Method".
        `tls_context` is called for each connection, so that new certificates need no restart.
        OSError or ValueError where it cannot listen.
        """
        self._options = options or ServerOptions()
        self._tls_context = tls_context
        self._method = methods.get if isinstance(methods, Mapping) else methods
        sockets: list[socket.socket] = []
        try:
            for address in addresses:
                sockets += listening.bind(address)
        except BaseException:
            for sock in sockets:
                sock.close()
            raise
        self.addresses = [listening.name(sock) for sock in sockets]
        self._connections: set[ServerConnection] = set()
        self._opening: set[Greeting | tls.Handshake] = set()
        self._count = 0
        self._count_lock = threading.Lock()
        self._stopping = False
        self._workers = Workers(
            self._options.unpack_threads, self._options.max_unpacking, "grpc-unpack"
        )
        self._loops = [Loop(f"grpc-io-{number}") for number in range(self._options.io_threads)]
        self._scratch = {loop: memoryview(bytearray(SCRATCH_BYTES)) for loop in self._loops}
        self._next = 0
        self._ahead = AheadBytes(self._options.max_ahead_bytes)
        self._listeners = [Listener(self._loops[0], sock, self._accepted) for sock in sockets]

    # --- Host

    @property
    def on_call_ended(self) -> OnCallEnded | None:
        """See Host."""
        return self._options.on_call_ended

    @property
    def ahead(self) -> AheadBytes:
        """See Host."""
        return self._ahead

    def method(self, path: str) -> Method | None:
        """See Host."""
        return self._method(path)

    def on_connection_gone(self, connection: ServerConnection) -> None:
        """See Host."""
        self._connections.discard(connection)
        self._forget_one()

    def run_blocking(self, work: Callable[[], None]) -> bool:
        """See Host."""
        return self._workers.submit(work)

    def pressed(self) -> bool:
        """See Host."""
        return self._options.pressed()

    def on_dropped(self) -> None:
        """See Host."""
        if self._options.on_dropped is not None:
            self._options.on_dropped()

    # --- connections

    def _accepted(self, sock: socket.socket) -> None:
        with self._count_lock:
            if self._count >= self._options.max_connections:
                _log.warning("connection refused: %d are open", self._count)
                sock.close()
                return
            self._count += 1
        try:
            self._prepare(sock)
            peer = listening.peer_name(sock)
        except OSError:  # the peer is gone
            sock.close()
            self._forget_one()
            return
        loop = self._loops[self._next % len(self._loops)]
        self._next += 1
        loop.call_soon(lambda: self._try_to_open(loop, sock, peer))

    def _forget_one(self) -> None:
        with self._count_lock:
            self._count -= 1

    def _prepare(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        size = self._options.socket_buffer_bytes
        if size:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)

    def _try_to_open(self, loop: Loop, sock: socket.socket, peer: str) -> None:
        try:
            self._open(loop, sock, peer)
        except Exception:
            report(_log, "a connection cannot be opened")
            sock.close()
            self._forget_one()

    def _open(self, loop: Loop, sock: socket.socket, peer: str) -> None:
        if self._stopping:
            sock.close()
            self._forget_one()
            return
        if self._tls_context is None:
            self._greet(loop, sock, peer)
            return
        timeout_s = self._options.connection.preface_s

        def done(secured: ssl.SSLSocket | None, failure: str) -> None:
            self._opening.discard(handshake)
            if secured is None:
                _log.info("connection of %s ends in its TLS handshake: %s", peer, failure)
                self._forget_one()
            else:
                self._greet(loop, secured, peer)

        try:
            wrapped = tls.wrap_server(self._tls_context(), sock)
        except Exception as error:
            _log.warning("connection of %s refused: TLS: %s", peer, error)
            sock.close()
            self._forget_one()
            return
        handshake = tls.Handshake(loop, wrapped, timeout_s, done)
        self._opening.add(handshake)

    def _greet(self, loop: Loop, sock: socket.socket, peer: str) -> None:
        pipe: Pipe = TlsPipe(sock) if isinstance(sock, ssl.SSLSocket) else PlainPipe(sock)

        def done(failure: str) -> None:
            self._opening.discard(greeting)
            if failure or self._stopping:
                if failure:
                    _log.info("connection of %s ends at once: %s", peer, failure)
                else:
                    sock.close()
                self._forget_one()
                return
            try:
                connection = ServerConnection(
                    self, loop, sock, pipe, self._options.connection, self._scratch[loop], peer
                )
                self._connections.add(connection)
                connection.start(b"")
            except Exception:
                report(_log, "a connection cannot be opened")
                sock.close()
                self._forget_one()

        greeting = Greeting(loop, sock, pipe, self._options.connection.preface_s, done)
        self._opening.add(greeting)

    # --- the end

    @property
    def connections(self) -> int:
        """Connections that are open, also those whose handshake is under way."""
        return self._count

    @property
    def calls(self) -> int:
        """Calls under way."""
        return sum(len(connection.streams) for connection in list(self._connections))

    def stop(self, grace_s: float = 0.0) -> None:
        """Take no new connections and calls, let calls end for `grace_s`, then cancel them."""
        self._stopping = True
        self._loops[0].call_soon(self._close_listeners)
        end_s = time.monotonic() + grace_s
        self._for_all(lambda connection: connection.drain())
        while self._connections and time.monotonic() < end_s:
            time.sleep(_POLL_S)
        self._for_all(lambda connection: connection.cancel_all(_STOPPED))
        self._for_all(lambda connection: connection.close_soon())
        end_s = time.monotonic() + _LAST_WRITES_S
        while self._connections and time.monotonic() < end_s:
            time.sleep(_POLL_S)
        self._for_all(lambda connection: connection.lose("the server stops"))
        for loop in self._loops:
            loop.stop()
        self._workers.close()

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            listener.close()
        for opening in list(self._opening):
            opening.close_soon()

    def _for_all(self, action: Callable[[ServerConnection], None]) -> None:
        for connection in list(self._connections):
            with contextlib.suppress(RuntimeError):
                connection.loop.call_soon(lambda each=connection: action(each))  # type: ignore[misc]
