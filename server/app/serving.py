"""Serve until a signal asks the process to end, then drain."""

import contextlib
import gc
import logging
import signal
import socket
import sys
from collections.abc import Iterable, Iterator

from protos import malloc
from server.app import logs, stacks
from server.app.config import Config
from server.app.server import Server
from server.errors import StartError

_log = logging.getLogger("server")
# Calls leave nothing to the collector, which would look at those in flight every 700 objects.
_COLLECTED_OBJECTS = 10_000
# For the log, of which a reader may stand still.
_LAST_LINES_S = 2.0


def serve(settings: Config, warnings: Iterable[str]) -> int:
    """Serve until SIGTERM or SIGINT, then drain. 0: done; 2: could not start.

    `warnings` are logged first.
    """
    logs.set_up(settings.log_level)
    try:
        return _serve(settings, warnings)
    finally:
        logs.writer().flush(_LAST_LINES_S)


def _serve(settings: Config, warnings: Iterable[str]) -> int:
    for warning in warnings:
        _log.warning(warning)
    malloc.keep_in_process(all_sizes=True)
    gc.set_threshold(_COLLECTED_OBJECTS)
    with _stop_signals() as arrived:
        try:
            server = Server(settings)
        except StartError as error:
            print(f"argmax-server: error: {error}", file=sys.stderr)
            return 2
        print(f"listening on {server.address}", flush=True)
        while arrived.recv(1)[0] == signal.SIGUSR1:
            stacks.dump()
        server.drain()
    return 0


@contextlib.contextmanager
def _stop_signals() -> Iterator[socket.socket]:
    """A socket from which the numbers of signals that arrive can be read.

    Python writes to it in whichever thread gets the signal. A handler that takes a lock could wait
    forever for one that the code it interrupts holds.
    """
    arrived, written = socket.socketpair()
    with arrived, written:
        written.setblocking(False)
        signal.set_wakeup_fd(written.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, lambda *_: None)
        try:
            yield arrived
        finally:
            signal.set_wakeup_fd(-1)
