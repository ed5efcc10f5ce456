"""Measure batching on and off, under many clients of one example each."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from client.errors import RequestFailed
from measure.core.comparison import interleaved
from measure.engine.pace import Pace
from measure.engine.processes import LoadProcesses, load_processes
from measure.side_by_side.service import Settings, connected, serving, single_rows

_CLIENTS, _PROCESSES = 16, 4
# Distinct rows, sent in turn.
_EXAMPLES = 16
_WARM_UP_S, _SECONDS = 0.25, 1.5


@dataclass(frozen=True, slots=True)
class Concurrency:
    """Rows per second of all clients together, one value per round, and batch close reasons."""

    clients: int
    batching: list[float]
    no_batching: list[float]
    wrong_labels: int
    rows_per_execution: float
    batches_closed: dict[str, int]


def compare_batching(
    models: Path, settings: Settings, report: Callable[[str], None]
) -> Concurrency:
    """Measure both servers in turn; RequestFailed if a client fails."""
    with ExitStack() as stack:
        servers = [
            stack.enter_context(serving(models, settings)),
            # Groups of one row: every request runs alone.
            stack.enter_context(serving(models, settings, ["--group-rows", "1"])),
        ]
        experiment = replace(settings.experiment, examples=_EXAMPLES)
        loads = [
            stack.enter_context(
                load_processes(
                    single_rows(server.address, experiment),
                    _PROCESSES,
                )
            )
            for server in servers
        ]
        wrong = 0

        def run(load: LoadProcesses) -> float:
            nonlocal wrong
            running = load.start(Pace(_CLIENTS), _WARM_UP_S, _SECONDS)
            running.slice()
            measured = running.slice()
            whole = running.stop()
            whole.add(measured)
            for code, text in whole.error_texts.items():
                raise RequestFailed(code, text)
            wrong += whole.wrong_labels
            return measured.rows / measured.elapsed_ns * 1e9

        report(f"{_CLIENTS} clients: {settings.rounds} rounds with batching and without")
        with_it, without = loads
        batching, no_batching = interleaved(
            [lambda: run(with_it), lambda: run(without)], settings.rounds
        )
        client = stack.enter_context(connected(servers[0].address))
        statistics = client.statistics()
        closed = {
            name: int(duration.success.count)
            for name, duration in statistics.response_stats.items()
            if name.startswith("batch_closed_")
        }
        share = statistics.inference_count / max(statistics.execution_count, 1)
        return Concurrency(_CLIENTS, batching, no_batching, wrong, share, closed)
