"""Take every measurement that is possible, one after the other."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from client.errors import RequestFailed, UsageError
from measure.core import local_server
from measure.core.verification import Truth, truth
from measure.limits.memory import memcpy_gib_per_s
from measure.peers.peer_servers import MODEL, Work
from measure.side_by_side.contenders import PERF_ANALYZER, bring_up, load_with_perf_analyzer
from measure.side_by_side.goals import (
    BATCHING_GAIN,
    NARROW_WIRE,
    PEAK_MEMORY,
    SMALL_REQUESTS,
    Measured,
)
from measure.side_by_side.parts.concurrency import Concurrency, compare_batching
from measure.side_by_side.parts.memory import Memory, watch
from measure.side_by_side.parts.narrow import Narrow, compare_wires
from measure.side_by_side.parts.small_requests import SmallRequests, compare_small_requests
from measure.side_by_side.raw_socket.client import limit_systems
from measure.side_by_side.rounds import Cell, measure
from measure.side_by_side.service import Settings, service_systems, serving

Report = Callable[[str], None]


@dataclass(slots=True)
class Results:
    """All results; `skipped` gives the reason for each missing one by name."""

    memcpy_gib_per_s: dict[str, list[float]] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    cells: list[Cell] = field(default_factory=list)
    concurrency: Concurrency | None = None
    narrow: Narrow | None = None
    memory: Memory | None = None
    small_requests: SmallRequests | None = None
    versions: dict[str, dict[str, str]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def measured(self) -> Measured:
        """The measurements that goals use."""
        return Measured(self.cells, self.narrow, self.concurrency, self.memory, self.small_requests)


def run(settings: Settings, report: Report, results: Results) -> None:
    """Measure everything into `results`.

    Peers that fail go to `skipped`; anything else raises UsageError.
    """
    warm, fresh = memcpy_gib_per_s(settings.rounds)
    results.memcpy_gib_per_s = {"warm": warm, "fresh": fresh}
    report("exporting the model, computing the float64 reference")
    models = settings.out / "models"
    graph = local_server.export(settings.experiment, MODEL, models)
    expected = truth(settings.experiment)
    _side_by_side(settings, graph, expected, results, report)
    with _skipping(BATCHING_GAIN, results, report):
        results.concurrency = compare_batching(models, settings, report)
    with _skipping(NARROW_WIRE, results, report):
        results.narrow = compare_wires(settings, expected, report)
    with _skipping(PEAK_MEMORY, results, report):
        results.memory = watch(models, settings, expected, report)
    with _skipping(SMALL_REQUESTS, results, report):
        results.small_requests = compare_small_requests(settings, report)


def _side_by_side(
    settings: Settings, graph: Path, expected: Truth, results: Results, report: Report
) -> None:
    """Measure limits, service and peers at each batch size, with all of them running at once."""
    experiment = settings.experiment
    rows = max(1024, *settings.batch_sizes)
    work = Work(graph, experiment.classes, experiment.features, settings.threads, rows)
    with ExitStack() as stack:
        systems = limit_systems(stack, graph, settings.threads, expected.x)
        server = stack.enter_context(serving(settings.out / "models", settings))
        systems += service_systems(stack, server.address, expected)
        found = bring_up(stack, settings.peers, work, expected.x, report)
        systems += found.systems
        results.kinds = {system.name: system.kind for system in systems}
        for batch_size in settings.batch_sizes:
            results.cells += measure(systems, batch_size, settings.rounds, expected, report)
        if PERF_ANALYZER in settings.peers:
            cells = load_with_perf_analyzer(
                server.address, found, settings.batch_sizes, settings.rounds, report
            )
            results.kinds |= {cell.system: "perf_analyzer" for cell in cells}
            results.cells += cells
        results.versions = found.versions
        results.skipped |= found.skipped


@contextmanager
def _skipping(name: str, results: Results, report: Report) -> Iterator[None]:
    """Skip a part that fails, and record the reason."""
    try:
        yield
    except (UsageError, RequestFailed) as error:
        results.skipped[name] = str(error)
        report(f"{name} is skipped: {error}")
