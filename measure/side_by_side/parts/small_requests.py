"""Measure requests of 256 bytes, whose cost is all overhead: rates, and processor time."""

import functools
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import psutil

from client.errors import RequestFailed
from measure.core import local_server
from measure.core.comparison import interleaved
from measure.engine.loop import Pace
from measure.engine.processes import load_processes
from measure.peers.environments import NotAvailable
from measure.peers.peer_servers import MODEL, PEERS, Work, running_peer
from measure.side_by_side.contenders import PERF_ANALYZER
from measure.side_by_side.perf_analyzer import PerfAnalyzer, Target
from measure.side_by_side.service import Settings, serving, single_rows

FEATURES = 64
CONCURRENCIES = (16, 64)
_EXAMPLES = 256
_WARM_UP_S, _SECONDS = 0.5, 1.5
_ROWS = 64


@dataclass(frozen=True, slots=True)
class SmallRequests:
    """Values per round, by the number of requests in flight.

    `server_us`: the server's processor time for a request of this project's client. `service_perf`
    and `triton_perf`: requests per second that perf_analyzer measures; empty without it or Triton,
    `skipped` says why.
    """

    server_us: dict[int, list[float]]
    service_perf: dict[int, list[float]] = field(default_factory=dict)
    triton_perf: dict[int, list[float]] = field(default_factory=dict)
    skipped: str = ""


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
            return _with_triton(found, program, server.address, triton, settings.rounds, report)
        except NotAvailable as error:
            return SmallRequests(found, skipped=str(error))


def _with_triton(
    server_us: dict[int, list[float]],
    program: PerfAnalyzer,
    service: str,
    triton: str,
    rounds: int,
    report: Callable[[str], None],
) -> SmallRequests:
    """Drive both servers in turn; NotAvailable if perf_analyzer fails."""
    report(f"small requests: {rounds} rounds of perf_analyzer here and on Triton")
    targets = (Target("service_perf", service, False), Target("triton_perf", triton, False))
    rates: dict[str, dict[int, list[float]]] = {target.name: {} for target in targets}
    for concurrency in CONCURRENCIES:
        runs = [functools.partial(program.rows_per_s, target, 1, concurrency) for target in targets]
        for target, values in zip(targets, interleaved(runs, rounds), strict=True):
            rates[target.name][concurrency] = values
    return SmallRequests(server_us, rates["service_perf"], rates["triton_perf"])


def _processor_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
