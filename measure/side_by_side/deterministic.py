"""Measure the cost of `--deterministic`.

python -m measure.side_by_side.deterministic MODELS [PAIRS]

Two servers of the same models, one with the option and one without, take turns (ABBA). It prints
the ratio of the times with and without the option, the median of the pairs with a 95% bootstrap
interval, for one example, for 16 in a request and for a stream of 256, at the server's own group
size and at --group-rows 16.
"""

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.client import Client
from command_line.parser import Parser, exit_codes
from command_line.paths import path
from measure.core.arguments import positive
from measure.core.comparison import interleaved, ratio
from measure.core.judged import guarded
from measure.core.local_server import running_server

_PAIRS = 20
_READY_S = 60.0
_REPEATS = {1: 8, 16: 4}
_STREAM_ROWS = 256


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print a line for each kind of request."""
    parser = Parser(
        prog="measure.side_by_side.deterministic",
        description=(__doc__ or "").partition("\n")[0],
        epilog=exit_codes(None),
    )
    parser.add_argument("models", type=path, help="repository that both servers serve")
    parser.add_argument("pairs", type=positive, nargs="?", default=_PAIRS, help="%(default)s")
    args = parser.parse_args(argv)
    return guarded("measure.side_by_side.deterministic", partial(_measure, args.models, args.pairs))


def _measure(models: Path, pairs: int) -> int:
    for group in ([], ["--group-rows", "16"]):
        with ExitStack() as stack:
            clients = []
            for switch in ("on", "off"):
                options = ["--deterministic", switch, *group]
                server = stack.enter_context(running_server(models, options))
                clients.append(stack.enter_context(Client(server.address)))
                clients[-1].wait_until_ready(_READY_S)
            (name,) = (spec.name for spec in clients[0].config().input)
            features = clients[0].config().input[0].dims[0]
            x = np.random.default_rng(0).standard_normal((_STREAM_ROWS, features), np.float32)
            for what, ask in _ways(name, x).items():
                runs = [_timed(ask, client) for client in clients]
                for run in runs:
                    run()  # the first pays for connections and memory
                with_it, without = interleaved(runs, pairs)
                found = ratio(with_it, without)
                print(
                    f"{' '.join(group) or '--group-rows auto':18}{what:14}"
                    f"{found.median:6.2f} ({found.low:.2f} to {found.high:.2f}), {pairs} pairs",
                    flush=True,
                )
    return 0


def _ways(name: str, x: NDArray[np.float32]) -> dict[str, Callable[[Client], object]]:
    def unary(rows: int) -> Callable[[Client], object]:
        return lambda client: [
            client.infer({name: x[:rows]}, ["label"]) for _ in range(_REPEATS[rows])
        ]

    return {
        "1 example": unary(1),
        "16 examples": unary(16),
        f"stream of {len(x)}": lambda client: list(client.stream([x])),
    }


def _timed(ask: Callable[[Client], object], client: Client) -> Callable[[], float]:
    def run() -> float:
        started = time.perf_counter()
        ask(client)
        return time.perf_counter() - started

    return run


if __name__ == "__main__":
    sys.exit(main())
