"""Measure how fast ONNX Runtime multiplies matrices that fit into the caches."""

import tempfile
import time
from pathlib import Path

from measure.core.local_server import export
from measure.core.verification import Experiment, truth
from measure.sweep.modes import Local

# Large enough for every core, small enough for the caches; the rest of the graph, an ArgMax over
# 512 scores per row, takes a hundredth of the time.
CLASSES, FEATURES, ROWS = 512, 4096, 1024


def gflop_per_s(rounds: int, dtype: str, threads: int, ep: str) -> list[float]:
    """Multiply [1024, 4096] by [4096, 512] on an execution provider; GFLOP/s per round.

    UsageError if the provider is not available.
    """
    experiment = Experiment(CLASSES, FEATURES, dtype, seed=0, examples=ROWS)
    with tempfile.TemporaryDirectory(prefix="gemm-") as folder:
        graph = export(experiment, "gemm", Path(folder))
        mode = Local(graph, threads, ROWS, ep)
        x = truth(experiment).x
        rates = []
        for _ in range(rounds + 2):
            started_ns = time.perf_counter_ns()
            mode.predict(x)
            took_ns = time.perf_counter_ns() - started_ns
            rates.append(2 * ROWS * FEATURES * CLASSES / took_ns)
        mode.close()
    # The first rounds pay for memory and packing.
    return rates[2:]
