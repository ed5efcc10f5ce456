"""Measure how close a stream of 1,024 examples comes to a raw socket, without other systems.

python -m measure.side_by_side.raw_socket.stream_limit [ROUNDS]

Exit code 0: at least half, the interval's lower end too
"""

import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from measure.core import local_server
from measure.core.comparison import interleaved, ratio
from measure.core.judged import guarded, rounds_of
from measure.core.verification import Experiment, check, truth
from measure.peers.peer_servers import MODEL
from measure.side_by_side.raw_socket.client import RawSocket, raw_server
from measure.side_by_side.service import Settings, connected, serving
from measure.sweep.modes import Mode, Stream
from server.app.config import cores

_SHARE = 0.5


def main() -> int:
    """Measure the given number of rounds."""
    return guarded(
        "measure.side_by_side.raw_socket.stream_limit",
        partial(_measure, rounds_of("measure.side_by_side.raw_socket.stream_limit", __doc__)),
    )


def _measure(rounds: int) -> int:
    experiment = Experiment(classes=64, features=262_144, dtype="float32", seed=0)
    settings = Settings(
        experiment=experiment,
        batch_sizes=(1024,),
        rounds=rounds,
        threads=cores(),
        peers=(),
        memory_streams=0,
        out=Path(),
    )
    reference = truth(experiment)
    wrong = 0

    def rate(mode: Mode) -> Callable[[], float]:
        def run() -> float:
            nonlocal wrong
            started = time.perf_counter()
            labels = mode.predict(reference.x).labels
            taken = time.perf_counter() - started
            wrong += check(reference, 0, labels).wrong_labels
            return len(reference.x) / taken

        run()  # the first pays for memory
        return run

    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        graph = local_server.export(experiment, MODEL, Path(folder))
        address = stack.enter_context(raw_server(graph, settings.threads, unix=False))
        server = stack.enter_context(serving(Path(folder), settings))
        modes = (Stream(stack.enter_context(connected(server.address))), RawSocket(address))
        for mode in modes:
            stack.callback(mode.close)
        stream, raw = interleaved([rate(mode) for mode in modes], rounds)
    found = ratio(stream, raw)
    print("stream, examples/s:    ", *(f"{value:,.0f}" for value in stream))
    print("raw socket, examples/s:", *(f"{value:,.0f}" for value in raw))
    print(f"ratio {found:.2f} of {found.pairs} pairs")
    print(f"wrong labels: {wrong}")
    return 0 if found.low >= _SHARE and not wrong else 1


if __name__ == "__main__":
    sys.exit(main())
