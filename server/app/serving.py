"""Serve until a signal asks the process to end, then drain."""

import gc
import logging
import signal
import threading
from collections.abc import Iterable

from protos import malloc
from server.app import logs, readiness, sizing, stacks
from server.app.config import Config
from server.app.memory_guard import MemoryGuard
from server.app.process import streams
from server.app.process.stop_signals import StopSignals
from server.app.server import Server
from server.errors import StartError

_log = logging.getLogger("server")
# Calls leave nothing to the collector, which would look at those in flight every 700 objects.
_COLLECTED_OBJECTS = 10_000
# What is kept of freed memory: at least so much, and all messages that the byte budget has room for
# with a little beside them, since the next one may be as large.
_KEPT_BYTES = 512 * 2**20
_KEPT_BESIDE_BYTES = 128 * 2**20
# Of each thread. By default it is 8 MiB, which counts against limits on a process's memory although
# next to nothing of it is used; there are some thirty threads.
_STACK_BYTES = 2 * 2**20
# Beyond the grace period, for all else that is done at the end: a server that hangs is ended then.
_END_S = 4.5
# For the log, of which a reader may stand still.
_LAST_LINES_S = 1.0


def serve(
    settings: Config, warnings: Iterable[str], stop: StopSignals, notify_address: str | None = None
) -> int:
    """Serve until SIGTERM or SIGINT, then drain. 0: done; 2: could not start.

    SIGUSR1 logs what every thread is doing, at any time.

    `warnings` are logged first. `notify_address`: where a supervisor is notified, see `readiness`.
    """
    set_up_process(settings)
    stop.on(signal.SIGUSR1, stacks.dump)
    try:
        return _serve(settings, warnings, stop, notify_address)
    finally:
        logs.writer().flush(_LAST_LINES_S)


def set_up_process(settings: Config) -> None:
    """Prepare the process for a server: threads, logs, memory; before the server is made."""
    threading.stack_size(_STACK_BYTES)
    logs.set_up(settings.log_level)
    malloc.keep_in_process(max(_KEPT_BYTES, settings.max_inflight_bytes + _KEPT_BESIDE_BYTES))
    gc.set_threshold(_COLLECTED_OBJECTS)


def _serve(
    settings: Config, warnings: Iterable[str], stop: StopSignals, notify_address: str | None
) -> int:
    for warning in (*warnings, *sizing.thread_warnings(settings)):
        _log.warning(warning)
    try:
        server = Server(settings, lambda: stop.serving(settings.grace_s + _END_S))
    except StartError as error:
        streams.complain(f"argmax-server: error: {error}")
        return 2
    guard = MemoryGuard(settings.max_inflight_bytes + settings.max_stream_bytes)
    streams.announce(f"listening on {server.address}")
    readiness.notify(notify_address, readiness.READY)
    stop.wait()
    readiness.notify(notify_address, readiness.STOPPING)
    server.drain()
    guard.close()
    return 0
