"""Compare a server with its batching switched off, under many clients of one example each."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from client.errors import RequestFailed
from measure.core.comparison import interleaved
from measure.core.processes import child
from measure.core.verification import Truth, check
from measure.side_by_side.service import Settings, connected, serving

_PROCESSES = 4
_THREADS = 4
_SECONDS = 1.5


@dataclass(frozen=True, slots=True)
class Concurrency:
    """Rows per second of all clients together, a value a round, and why batches closed."""

    clients: int
    batching: list[float]
    no_batching: list[float]
    wrong_labels: int
    rows_per_execution: float
    batches_closed: dict[str, int]


class _Clients:
    """The processes, which all go at once."""

    def __init__(self, stack: ExitStack, settings: Settings, addresses: Sequence[str]) -> None:
        experiment = settings.experiment
        command = [sys.executable, "-m", "measure.side_by_side.parts.clients", str(_THREADS)]
        command += [str(experiment.features), str(experiment.seed), *addresses]
        pipe = subprocess.PIPE
        self._processes = [
            stack.enter_context(child(command, stdin=pipe, stdout=pipe)) for _ in range(_PROCESSES)
        ]
        for process in self._processes:
            _answer(process)

    def go(self, index: int) -> list[dict[str, Any]]:
        """Have all clients go against address `index`; what each process says."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(f"{index} {_SECONDS}\n".encode())
            process.stdin.flush()
        return [_answer(process) for process in self._processes]


def compare_batching(
    models: Path, settings: Settings, truth: Truth, report: Callable[[str], None]
) -> Concurrency:
    """Measure both servers in turn; RequestFailed when a client fails."""
    with ExitStack() as stack:
        servers = [
            stack.enter_context(serving(models, settings)),
            # Groups of one row: every request runs alone.
            stack.enter_context(serving(models, settings, ["--group-rows", "1"])),
        ]
        clients = _Clients(stack, settings, [server.address for server in servers])
        wrong = 0

        def run(index: int) -> float:
            nonlocal wrong
            answers = clients.go(index)
            for answer in answers:
                if answer["errors"]:
                    raise RequestFailed("UNKNOWN", answer["errors"][0])
                wrong += _wrong(answer["labels"], truth)
            return sum(float(answer["rows"]) / float(answer["elapsed_s"]) for answer in answers)

        count = _PROCESSES * _THREADS
        report(f"{count} clients: {settings.rounds} rounds with batching and without")
        for index in range(len(servers)):
            run(index)
        batching, no_batching = interleaved([lambda: run(0), lambda: run(1)], settings.rounds)
        client = stack.enter_context(connected(servers[0].address))
        statistics = client.statistics()
        closed = {
            name: int(told.success.count)
            for name, told in statistics.response_stats.items()
            if name.startswith("batch_closed_")
        }
        share = statistics.inference_count / max(statistics.execution_count, 1)
        return Concurrency(count, batching, no_batching, wrong, share, closed)


def _wrong(labels: Sequence[int], truth: Truth) -> int:
    return sum(
        check(truth, row, np.array([label])).wrong_labels
        for row, label in enumerate(labels)
        if label >= 0
    )


def _answer(process: "subprocess.Popen[bytes]") -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RequestFailed("UNAVAILABLE", "a client process ended")
    answer: dict[str, Any] = json.loads(line)
    return answer
