"""Measure how near a stream of 1,024 examples comes to a raw socket, with nothing else beside.

python -m bench.stream_limit [ROUNDS]    exit code 0: at least half, the interval's lower end too
"""

import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from bench.guarded import guarded, rounds_of
from bench.limits import RawSocket, raw_server
from bench.service import Settings, connected, export, serving
from client.comparison import interleaved, ratio
from client.modes import Mode, Stream
from client.verification import Experiment, check, truth
from server.config import cores

_SHARE = 0.5


def main() -> int:
    return guarded(
        "bench.stream_limit", partial(_measure, rounds_of("bench.stream_limit", __doc__))
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
        graph = export(settings, Path(folder))
        address = stack.enter_context(raw_server(graph, settings.threads, unix=False))
        server = stack.enter_context(serving(Path(folder), settings))
        modes = (Stream(stack.enter_context(connected(server.address))), RawSocket(address))
        for mode in modes:
            stack.callback(mode.close)
        stream, raw = interleaved([rate(mode) for mode in modes], rounds)
    found = ratio(stream, raw)
    print("stream, examples/s:    ", *(f"{value:,.0f}" for value in stream))
    print("raw socket, examples/s:", *(f"{value:,.0f}" for value in raw))
    print(f"ratio {found.median:.2f} [{found.low:.2f}, {found.high:.2f}] of {found.pairs} pairs")
    print(f"wrong labels: {wrong}")
    return 0 if found.low >= _SHARE and not wrong else 1


if __name__ == "__main__":
    sys.exit(main())
