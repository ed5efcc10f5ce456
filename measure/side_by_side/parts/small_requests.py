"""Measure requests of 256 bytes, whose cost is all overhead: rates, and processor time."""

import functools
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import psutil

from client.client import Client
from client.errors import RequestFailed
from measure.core import local_server
from measure.core.comparison import interleaved
from measure.engine.pace import Pace
from measure.engine.processes import load_processes
from measure.peers.environments import NotAvailable
from measure.peers.peer_servers import MODEL, PEERS, Work, running_peer
from measure.side_by_side.contenders import PERF_ANALYZER
from measure.side_by_side.perf_analyzer import PerfAnalyzer, Target
from measure.side_by_side.service import Settings, connected, serving, single_rows

FEATURES = 64
CONCURRENCIES = (16, 64)
_EXAMPLES = 256
_WARM_UP_S, _SECONDS = 0.5, 1.5
_ROWS = 64


@dataclass(frozen=True, slots=True)
class SmallRequests:
    """Values per round, by the number of requests in flight.

    `server_us`: the server's processor time for a request of this project's client, `perf_us` for
    one of perf_analyzer. `service_perf` and `triton_perf`: requests per second that perf_analyzer
    measures. All but `server_us` are empty without it or Triton, `skipped` says why.
    """

    server_us: dict[int, list[float]]
    service_perf: dict[int, list[float]] = field(default_factory=dict)
    triton_perf: dict[int, list[float]] = field(default_factory=dict)
    skipped: str = ""
    perf_us: dict[int, list[float]] = field(default_factory=dict)


def compare_small_requests(settings: Settings, report: Callable[[str], None]) -> SmallRequests:
    """Measure one row of 64 features a request; RequestFailed if a client fails."""
    experiment = replace(settings.experiment, features=FEATURES, examples=_EXAMPLES)
    models = settings.out / "models-small"
    graph = local_server.export(experiment, MODEL, models)
    small = replace(settings, experiment=experiment, batch_sizes=(_ROWS,))
    with ExitStack() as stack:
        server = stack.enter_context(serving(models, small))
        load = stack.enter_context(load_processes(single_rows(server.address, experiment)))
        process = psutil.Process(server.pid)

        def server_us(concurrency: int) -> float:
            running = load.start(Pace(concurrency), _WARM_UP_S, _SECONDS)
            running.slice()
            before_s = _processor_s(process)
            measured = running.slice()
            spent_s = _processor_s(process) - before_s
            whole = running.stop()
            whole.add(measured)
            for code, text in whole.error_texts.items():
                raise RequestFailed(code, text)
            return spent_s / max(measured.answered, 1) * 1e6

        report(f"small requests: {settings.rounds} rounds of {CONCURRENCIES} in flight")
        runs = [functools.partial(server_us, n) for n in CONCURRENCIES]
        found = dict(zip(CONCURRENCIES, interleaved(runs, settings.rounds), strict=True))
        if not {"triton", PERF_ANALYZER} <= set(settings.peers):
            return SmallRequests(found)
        work = Work(graph, experiment.classes, FEATURES, settings.threads, _ROWS)
        try:
            program = PerfAnalyzer()
            triton = stack.enter_context(running_peer(PEERS["triton"], work))
            service = _Service(
                server.address, process, stack.enter_context(connected(server.address))
            )
            return _with_triton(found, program, service, triton, settings.rounds, report)
        except NotAvailable as error:
            return SmallRequests(found, skipped=str(error))


@dataclass(frozen=True, slots=True)
class _Service:
    """This server: how to reach it, its process, and a client that reads its counts."""

    address: str
    process: psutil.Process
    client: Client

    def spent(self) -> tuple[float, int]:
        """Seconds of processor time so far, and requests answered."""
        answered = self.client.statistics().inference_stats.success.count
        return _processor_s(self.process), answered


def _with_triton(
    server_us: dict[int, list[float]],
    program: PerfAnalyzer,
    service: _Service,
    triton: str,
    rounds: int,
    report: Callable[[str], None],
) -> SmallRequests:
    """Drive both servers in turn; NotAvailable if perf_analyzer fails."""
    report(f"small requests: {rounds} rounds of perf_analyzer here and on Triton")
    here, there = (
        Target("service_perf", service.address, False),
        Target("triton_perf", triton, False),
    )
    found = SmallRequests(server_us)

    def drive_here(concurrency: int, costs_us: list[float]) -> float:
        before_s, before = service.spent()
        rate = program.rows_per_s(here, 1, concurrency)
        after_s, after = service.spent()
        costs_us.append((after_s - before_s) / max(after - before, 1) * 1e6)
        return rate

    for concurrency in CONCURRENCIES:
        costs_us = found.perf_us[concurrency] = []
        runs = [
            functools.partial(drive_here, concurrency, costs_us),
            functools.partial(program.rows_per_s, there, 1, concurrency),
        ]
        rates = interleaved(runs, rounds)
        found.service_perf[concurrency], found.triton_perf[concurrency] = rates
    return found


def _processor_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
