"""Run the server with a leak in it: `python tests/leaky_server.py memory|descriptors|threads ...`.

For the tests of what is to find leaks.
"""

import os
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from server.__main__ import main
from server.rpc.inference import Inference

LEAKED_BYTES = 4096
kept = []
LEAKS = {
    "memory": lambda: kept.append(bytearray(os.urandom(LEAKED_BYTES))),
    "descriptors": lambda: kept.append(os.open("/dev/null", os.O_RDONLY)),
    "threads": lambda: threading.Thread(target=threading.Event().wait, daemon=True).start(),
}


def leaking(method, leak):
    def wrapped(*arguments, **named):
        leak()
        return method(*arguments, **named)

    return wrapped


if __name__ == "__main__":
    Inference.finish = leaking(Inference.finish, LEAKS[sys.argv[1]])
    sys.exit(main(sys.argv[2:]))
