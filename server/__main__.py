"""Command line of the server: `python -m server --models DIR`."""

import importlib
import os
import sys
from collections.abc import Sequence

from server.app.stop_signals import StopSignals

PROGRAM = "argmax-server"


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT, then drain. 0: done; 2: could not start."""
    stop = StopSignals(PROGRAM)
    # Before the first thread: memory that is freed in an arena of its own is of no use to others.
    importlib.import_module("protos.malloc").use_one_arena()
    stop.start()
    given = sys.argv[1:] if argv is None else list(argv)
    # Only now: it imports much, and a signal must not be lost meanwhile.
    command = importlib.import_module("server.app.command")
    code: int = command.run(PROGRAM, given, os.environ, stop)
    return code


if __name__ == "__main__":
    sys.exit(main())
