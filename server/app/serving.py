"""Serve until a signal asks the process to end, then drain."""

import gc
import logging
import signal
import sys
import threading
from collections.abc import Iterable

from protos import malloc
from server.app import logs
from server.app.config import Config
from server.app.server import Server
from server.errors import StartError

_log = logging.getLogger("server")

_WAKE_S = 0.1
# Calls leave nothing to the collector, which would look at those in flight every 700 objects.
_COLLECTED_OBJECTS = 10_000


def serve(settings: Config, warnings: Iterable[str]) -> int:
    """Serve until SIGTERM or SIGINT, then drain. 0: done; 2: could not start.

    `warnings` are logged first.
    """
    logs.set_up(settings.log_level)
    for warning in warnings:
        _log.warning(warning)
    malloc.keep_in_process(all_sizes=True)
    gc.set_threshold(_COLLECTED_OBJECTS)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        server = Server(settings)
    except StartError as error:
        print(f"argmax-server: error: {error}", file=sys.stderr)
        return 2
    print(f"listening on {server.address}", flush=True)
    # A signal that the kernel gives to another thread does not wake this one.
    while not stop.wait(_WAKE_S):
        pass
    server.drain()
    return 0
