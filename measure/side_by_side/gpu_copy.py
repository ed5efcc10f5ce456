"""Measure how close the CUDA provider, in process, comes to the rate of copying its inputs.

python -m measure.side_by_side.gpu_copy [ROUNDS]

Exit code 0: at least 0.8 of the copy rate from page-locked memory, the interval's lower end too;
1: not, or a wrong label; 2: no GPU that could be measured.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from command_line.resources import cores
from measure.core import local_server
from measure.core.comparison import interleaved
from measure.core.judged import conclude_share, run_rounds
from measure.core.verification import Experiment, check, truth
from measure.limits.pcie import DeviceMemory
from measure.peers.peer_servers import MODEL
from measure.sweep.modes import Local
from server.onnx import pinned_memory

_SHARE = 0.8
_ROWS = 1024
# Copies and executions use the same pieces.
_SLICE_ROWS = 128


def main() -> int:
    """Measure and print; return the exit code."""
    return run_rounds("measure.side_by_side.gpu_copy", __doc__, _measure)


def _measure(rounds: int) -> int:
    experiment = Experiment(classes=64, features=262_144, dtype="float32", seed=0)
    with tempfile.TemporaryDirectory() as folder:
        graph = local_server.export(experiment, MODEL, Path(folder))
        local = Local(graph, cores(), _SLICE_ROWS, "cuda")
        return _measured(local, experiment, rounds)


def _measured(local: Local, experiment: Experiment, rounds: int) -> int:
    reference = truth(experiment)
    x = np.ascontiguousarray(reference.x[:_ROWS])
    device = DeviceMemory(x[:_SLICE_ROWS].nbytes)
    pinned_memory.lock(x)
    answers: list[NDArray[Any]] = []

    def copy() -> None:
        for start in range(0, len(x), _SLICE_ROWS):
            device.fill(x[start : start + _SLICE_ROWS])

    def predict() -> None:
        answers.append(local.predict(x).labels)

    executed, copied = interleaved([_rate(predict, x), _rate(copy, x)], rounds)
    pinned_memory.unlock(x)
    wrong = sum(check(reference, 0, labels).wrong_labels for labels in answers)
    rates = {"cuda in process, GiB/s": executed, "copy from pinned memory, GiB/s": copied}
    return conclude_share(rates, ".1f", wrong, _SHARE)


def _rate(action: Callable[[], None], x: NDArray[Any]) -> Callable[[], float]:
    def run() -> float:
        started = time.perf_counter()
        action()
        return x.nbytes / 2**30 / (time.perf_counter() - started)

    run()  # the first pays for memory and kernels
    return run


if __name__ == "__main__":
    sys.exit(main())
