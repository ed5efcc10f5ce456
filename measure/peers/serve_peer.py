"""Serve the model with a peer server, for manual tests.

python -m measure.peers.serve_peer triton
"""

import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from client.errors import UsageError
from command_line.parser import Parser
from command_line.resources import cores
from measure.core import local_server
from measure.core.verification import Experiment
from measure.peers.environments import NotAvailable
from measure.peers.peer_servers import MODEL, PEERS, Work, running_peer

_MOST_ROWS = 1024


def main(argv: Sequence[str] | None = None) -> int:
    """Print the address, and serve until SIGTERM or SIGINT. 0: served; 2: cannot run."""
    parser = Parser(prog="measure.peers.serve_peer", description=__doc__)
    parser.add_argument("peer", choices=PEERS, help="installed below .bench/ if necessary")
    parser.add_argument("--classes", type=int, default=64, help="default: %(default)s")
    parser.add_argument("--features", type=int, default=262_144, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of W (default: %(default)s)")
    args = parser.parse_args(argv)
    # SIGTERM must also end the started server.
    signal.signal(signal.SIGTERM, _interrupt)
    experiment = Experiment(args.classes, args.features, "float32", args.seed)
    try:
        with tempfile.TemporaryDirectory() as folder:
            graph = local_server.export(experiment, MODEL, Path(folder))
            threads = cores()
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
