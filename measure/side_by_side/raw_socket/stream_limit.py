"""Measure how close a stream of 1,024 examples comes to a raw socket, without other systems.

python -m measure.side_by_side.raw_socket.stream_limit [ROUNDS]

Exit code 0: at least half, the interval's lower end too
"""

import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from command_line.resources import cores
from measure.core import local_server
from measure.core.comparison import interleaved
from measure.core.judged import conclude_share, run_rounds
from measure.core.verification import Experiment, check, truth
from measure.peers.peer_servers import MODEL
from measure.side_by_side.raw_socket.client import RawSocket, raw_server
from measure.side_by_side.service import Settings, connected, serving
from measure.sweep.modes import Mode, Stream

_SHARE = 0.5


def main() -> int:
    """Measure the given number of rounds."""
    return run_rounds("measure.side_by_side.raw_socket.stream_limit", __doc__, _measure)


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
    rates = {"stream, examples/s": stream, "raw socket, examples/s": raw}
    return conclude_share(rates, ",.0f", wrong, _SHARE)


if __name__ == "__main__":
    sys.exit(main())
