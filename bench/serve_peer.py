"""Serve the model with another server, to drive it by hand: `python -m bench.serve_peer triton`."""

import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from bench.environments import NotAvailable
from bench.peer_servers import MODEL, PEERS, Work, running_peer
from client import own_server
from client.errors import UsageError
from client.verification import Experiment
from command_line.parser import Parser

_MOST_ROWS = 1024


def main(argv: Sequence[str] | None = None) -> int:
    """Say where it listens, and serve until SIGTERM or SIGINT. 0: served; 2: it could not."""
    parser = Parser(prog="bench.serve_peer", description=__doc__)
    parser.add_argument("peer", choices=PEERS, help="which; it is installed below .bench/ first")
    parser.add_argument("--classes", type=int, default=64, help="default: %(default)s")
    parser.add_argument("--features", type=int, default=262_144, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of W (default: %(default)s)")
    args = parser.parse_args(argv)
    # Ending by SIGTERM must end what was started, too.
    signal.signal(signal.SIGTERM, _interrupt)
    experiment = Experiment(args.classes, args.features, "float32", args.seed)
    try:
        with tempfile.TemporaryDirectory() as folder:
            graph = own_server.export(experiment, MODEL, Path(folder))
            threads = len(os.sched_getaffinity(0))
            work = Work(graph, args.classes, args.features, threads, _MOST_ROWS)
            with running_peer(PEERS[args.peer], work) as address:
                print(f"listening on {address}", flush=True)
                while True:
                    signal.pause()
    except (NotAvailable, UsageError, OSError) as error:
        print(f"bench: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
