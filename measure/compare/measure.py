"""Measure execution providers side by side, in this process and each in a server of its own."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from client.client import READY_TIMEOUT_S, Client
from measure.compare.axes import Contestant
from measure.compare.runs import Cell, Measured, Provider
from measure.core import local_server
from measure.core.comparison import interleaved
from measure.core.local_server import ServerProcess, running_server
from measure.core.stages import Sample
from measure.core.verification import Truth, truth
from measure.sweep.modes import Local, Mode, Stream
from measure.sweep.summary import percentile, summarise
from measure.sweep.sweep import LOCAL_SLICE_ROWS, MODEL, Progress, Settings, check_model, run_batch

MODES = ("local", "stream")
# A round of a small batch size takes several batches: a single one would depend more on the caches
# that the previous provider left behind than on the provider.
_ROUND_NS = 50_000_000
_MOST_BATCHES = 16


@dataclass(frozen=True, slots=True)
class _Contender:
    """A provider in one mode."""

    label: str
    mode: Mode
    server: ServerProcess | None = None


@dataclass(slots=True)
class _Kept:
    """What was observed so far of a provider at one batch size in one mode."""

    samples: list[Sample] = field(default_factory=list)
    rounds_ns: list[int] = field(default_factory=list)
    batches: int = 0


def labels(specs: Sequence[str]) -> list[str]:
    """Name each of several contestants, in order; repeated ones are numbered."""
    seen: dict[str, int] = {}
    names = []
    for spec in specs:
        seen[spec] = seen.get(spec, 0) + 1
        names.append(spec if seen[spec] == 1 else f"{spec} #{seen[spec]}")
    return names


class Observed:
    """The observations of a contest so far, even of an interrupted one."""

    def __init__(self, settings: Settings, specs: Sequence[Contestant]) -> None:
        self.names = labels([str(spec) for spec in specs])
        self._specs = specs
        self.steps = [(size, mode) for size in settings.batch_sizes for mode in settings.modes]
        self.kept = {
            (mode, size, name): _Kept() for size, mode in self.steps for name in self.names
        }
        self.start_ups: dict[str, list[int]] = {name: [] for name in self.names}
        self.peaks: dict[str, list[int]] = {name: [] for name in self.names}

    @property
    def sizes(self) -> set[int]:
        """Batch sizes of which every provider has been measured in every mode."""
        missing = {size for (_, size, _), all_of in self.kept.items() if not all_of.rounds_ns}
        return {size for size, _ in self.steps} - missing

    def measured(self) -> Measured:
        """The measurements of `sizes`."""
        providers = [
            Provider(
                name,
                spec.ep,
                tuple(self.start_ups[name]),
                max(self.peaks[name], default=None),
                tuple(map(str, spec.values)),
            )
            for name, spec in zip(self.names, self._specs, strict=True)
        ]
        sizes = self.sizes
        cells = [
            _cell(name, mode, size, all_of)
            for (mode, size, name), all_of in self.kept.items()
            if size in sizes
        ]
        return Measured(tuple(providers), tuple(cells))


def contest(
    settings: Settings,
    specs: Sequence[Contestant],
    starts: int,
    report: Callable[[Progress], None],
    observed: Observed | None = None,
) -> Measured:
    """Measure all providers at each batch size in each mode, in `settings.repeats` rounds.

    The rounds are dealt over `starts` fresh servers of each provider, as what a process happens to
    be dealt (memory above all) favours it for as long as it lives. `settings.address` and
    `settings.ep` are not used. `observed` has at any time what there is so far. Failed requests
    become errors of their point; UsageError when a provider cannot be had.
    """
    observed = observed or Observed(settings, specs)
    names, steps = observed.names, observed.steps
    total, done = len(steps) * starts, 0
    report(Progress("exporting the model", 0, total, preparation=True))
    graph = local_server.export(settings.experiment, MODEL, settings.out / "models")
    report(Progress("computing the float64 reference", 0, total, preparation=True))
    reference = truth(settings.experiment)
    for number in range(starts):
        text = f"loading the model for each execution provider, {number + 1} of {starts}"
        report(Progress(text, done, total, preparation=True))
        # The first to start may have an advantage, so they take turns.
        order = list(zip(names, specs, strict=True))[:: 1 if number % 2 == 0 else -1]
        rounds = (settings.repeats + number) // starts
        with ExitStack() as stack:
            contenders: dict[str, list[_Contender]] = {}
            if "local" in settings.modes:
                contenders["local"] = list(_in_process(settings, order, graph, stack))
            if "stream" in settings.modes:
                contenders["stream"] = list(
                    _served(settings, order, reference, stack, observed.start_ups)
                )
            for size, mode in steps:
                report(Progress(f"{mode}, batch size {size}", done, total))
                kept = [observed.kept[mode, size, one.label] for one in contenders[mode]]
                _measure(contenders[mode], kept, size, reference, rounds)
                done += 1
                report(Progress(f"{mode}, batch size {size}", done, total))
            for one in contenders.get("stream", []):
                peak = one.server.peak_memory_bytes() if one.server else None
                observed.peaks[one.label] += [] if peak is None else [peak]
    return observed.measured()


def _in_process(
    settings: Settings, order: Sequence[tuple[str, Contestant]], graph: Path, stack: ExitStack
) -> Iterator[_Contender]:
    for name, spec in order:
        threads = spec.threads(settings.threads)
        mode = Local(graph, threads, LOCAL_SLICE_ROWS, spec.ep, spec.session)
        stack.callback(mode.close)
        yield _Contender(name, mode)


def _served(
    settings: Settings,
    order: Sequence[tuple[str, Contestant]],
    reference: Truth,
    stack: ExitStack,
    start_ups: dict[str, list[int]],
) -> Iterator[_Contender]:
    for name, spec in order:
        options = local_server.options(
            settings.experiment, settings.batch_sizes, settings.threads, spec.ep, whole=False
        )
        started_ns = time.perf_counter_ns()
        server = stack.enter_context(
            running_server(settings.out / "models", [*options, *spec.flags])
        )
        client = stack.enter_context(Client(server.address, MODEL))
        client.wait_until_ready(READY_TIMEOUT_S)
        start_ups[name].append(time.perf_counter_ns() - started_ns)
        check_model(client, settings.experiment, reference)
        mode = Stream(client)
        stack.callback(mode.close)
        yield _Contender(name, mode, server)


def _measure(
    contenders: Sequence[_Contender],
    kept: Sequence[_Kept],
    batch_size: int,
    reference: Truth,
    rounds: int,
) -> None:
    """Add rounds to what is kept of each contender; the first decides what makes a round."""
    warm = [_warm_up(one, batch_size, reference) for one in contenders]
    batches = kept[0].batches or max(warm)
    runs = []
    for one, all_of in zip(contenders, kept, strict=True):
        all_of.batches = batches
        runs.append(partial(_round, one, all_of, batch_size, reference))
    for all_of, medians in zip(kept, interleaved(runs, rounds), strict=True):
        all_of.rounds_ns += [int(median) for median in medians]


def _warm_up(contender: _Contender, batch_size: int, reference: Truth) -> int:
    """Run a shape twice, as the first one pays for memory and packing; batches for a round."""
    run_batch(contender.mode, batch_size, reference, 0)
    again = run_batch(contender.mode, batch_size, reference, 0)
    return min(_MOST_BATCHES, max(1, round(_ROUND_NS / max(again.latency_ns, 1))))


def _round(contender: _Contender, kept: _Kept, batch_size: int, reference: Truth) -> float:
    """Median latency of some batches in a row, each of the examples after those before."""
    places = math.ceil(len(reference.x) / batch_size)
    done = len(kept.samples)
    samples = [
        run_batch(contender.mode, batch_size, reference, (done + number) % places * batch_size)
        for number in range(kept.batches)
    ]
    kept.samples += samples
    return float(percentile([sample.latency_ns for sample in samples], 50))


def _cell(label: str, mode: str, batch_size: int, kept: _Kept) -> Cell:
    point = summarise(mode, batch_size, kept.samples)
    # A round with a failure has no latency, and its pair is no pair.
    return Cell(label, point, () if point.errors else tuple(kept.rounds_ns))
