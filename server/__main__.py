"""Command line of the server: `python -m server --models DIR`."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence

from protos import buffers
from server import config, logs, provider_list
from server.app import Server
from server.errors import StartError

_log = logging.getLogger("server")

_WAKE_S = 0.1


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT, then drain. 0: done; 2: it could not start."""
    settings = config.parse(argv, os.environ, provider_list.text)
    logs.set_up(settings.log_level)
    for warning in config.unknown_variables(os.environ):
        _log.warning(warning)
    buffers.keep_in_process(all_sizes=True)
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


if __name__ == "__main__":
    sys.exit(main())
