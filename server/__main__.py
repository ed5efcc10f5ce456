"""Command line of the server: `python -m server --models DIR`."""

import importlib
import os
import sys
from collections.abc import Sequence

from server.app.process import ending, streams
from server.app.process.stop_signals import StopSignals

PROGRAM = "argmax-server"
_REFUSED = 2
# For Python to end, and for threads that it waits for.
_LAST_S = 5.0


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT, then drain. 0: done; 2: could not start."""
    streams.prepare()
    stop = StopSignals(PROGRAM)
    try:
        return _run(sys.argv[1:] if argv is None else list(argv), stop)
    except Exception as error:
        text = importlib.import_module("command_line.shortage").described(error)
        if text is None:
            raise
        streams.complain(f"{PROGRAM}: error: {text}")
        return _REFUSED
    finally:
        if not stop.arrived:
            ending.within(_LAST_S)


def _run(given: Sequence[str], stop: StopSignals) -> int:
    # Before the first thread: memory that is freed in an arena of its own is of no use to others.
    importlib.import_module("protos.malloc").use_one_arena()
    stop.start()
    # Only now: it imports much, and a signal must not be lost meanwhile.
    command = importlib.import_module("server.app.command")
    code: int = command.run(PROGRAM, given, os.environ, stop)
    return code


if __name__ == "__main__":
    sys.exit(main())
