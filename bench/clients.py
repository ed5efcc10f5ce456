"""Be several clients that each send one example, wait for its label, and send the next.

    python -m bench.clients THREADS FEATURES SEED ADDRESS...

For each line `INDEX SECONDS` on stdin all threads go against that address, then comes a line of
JSON: `rows` answered, and the `labels` last given to each of the first examples (-1: none).
"""

import json
import sys
import threading
import time
from contextlib import ExitStack
from typing import Any

import numpy as np

from bench.service import connected
from client.client import Client
from client.errors import RequestFailed
from command_line.parser import Parser
from model.examples import standard_normal
from protos import buffers

Array = np.ndarray[Any, np.dtype[Any]]

EXAMPLES = 16


def main() -> None:
    parser = Parser(prog="bench.clients", description=(__doc__ or "").partition("\n")[0])
    for name in ("threads", "features", "seed"):
        parser.add_argument(name, type=int)
    parser.add_argument("addresses", nargs="+")
    args = parser.parse_args()
    buffers.keep_in_process()
    threads = args.threads
    x = standard_normal(EXAMPLES, args.features, args.seed, "float32")
    with ExitStack() as stack:
        clients = [stack.enter_context(connected(address)) for address in args.addresses]
        for client in clients:
            client.predict(x[:1])
        print(json.dumps({"ready": True}), flush=True)
        for line in sys.stdin:
            index, seconds = line.split()
            print(json.dumps(_closed_loop(clients[int(index)], x, threads, float(seconds))))
            sys.stdout.flush()


def _closed_loop(client: Client, x: Array, threads: int, seconds: float) -> dict[str, object]:
    labels = [-1] * len(x)
    counts = [0] * threads
    errors: list[str] = []
    stop = time.monotonic() + seconds

    def run(thread: int) -> None:
        at = thread
        try:
            while time.monotonic() < stop:
                row = at % len(x)
                (label,) = client.predict(x[row : row + 1])
                labels[row] = int(label)
                counts[thread] += 1
                at += threads
        except RequestFailed as error:
            errors.append(str(error))

    running = [threading.Thread(target=run, args=(i,)) for i in range(threads)]
    started = time.monotonic()
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    elapsed_s = time.monotonic() - started
    return {"rows": sum(counts), "elapsed_s": elapsed_s, "labels": labels, "errors": errors}


if __name__ == "__main__":
    main()
