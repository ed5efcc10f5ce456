"""The goals; each is a function of the measurements."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from measure.core.comparison import ratio
from measure.core.verdict import Criterion, Goal
from measure.side_by_side.parts.concurrency import Concurrency
from measure.side_by_side.parts.memory import Memory
from measure.side_by_side.parts.narrow import WIRES, Narrow
from measure.side_by_side.parts.small_requests import SmallRequests
from measure.side_by_side.rounds import Cell

# The number of features for which the goals are defined.
GOAL_FEATURES = 262_144
_ALL = 1024
_WEIGHTS_AND_MIB = 256
# Names of goals, also in records and for skipped parts; older records have P1 to P9.
BATCHING_GAIN = "gain from batching"
NARROW_WIRE = "gain from a narrow wire"
PEAK_MEMORY = "peak memory of a stream"
SMALL_REQUESTS = "small requests"
_SMALL_REQUEST_US = 250
_PERF_GOALS = {1: 1.2, 4: 1.5, 16: 1.5, 64: 1.5}
_WIRE_GOALS = {"float16": 1.5, "int8": 2.2}


@dataclass(frozen=True, slots=True)
class Measured:
    """The measurements that goals use; None: not measured."""

    cells: Sequence[Cell]
    narrow: Narrow | None = None
    concurrency: Concurrency | None = None
    memory: Memory | None = None
    small_requests: SmallRequests | None = None

    def cell(self, system: str, batch_size: int) -> Cell | None:
        """A cell whose rounds all succeeded; None if there is none."""
        for cell in self.cells:
            if (cell.system, cell.batch_size) == (system, batch_size):
                return cell if cell.rows_per_s and cell.error is None else None
        return None

    def sizes(self) -> list[int]:
        """The measured batch sizes."""
        return sorted({cell.batch_size for cell in self.cells})


@dataclass(slots=True)
class _Parts:
    """Collects the criteria of a goal, and names those that lack a side."""

    measured: Measured
    parts: list[Criterion] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def rates(self, a: str, b: str, batch_size: int, threshold: float) -> None:
        """Add the ratio of rows per second of a to those of b."""
        what = f"{a} / {b}, n={batch_size}"
        first = self.measured.cell(a, batch_size)
        second = self.measured.cell(b, batch_size)
        if first is None or second is None:
            self.missing.append(what)
        else:
            self.parts.append(
                Criterion(what, ratio(first.rows_per_s, second.rows_per_s), threshold)
            )

    def goal(self, name: str, text: str) -> Goal:
        """Make the goal from the criteria."""
        return Goal(name, text, tuple(self.parts), tuple(self.missing))


def all_goals(measured: Measured) -> list[Goal]:
    """Every goal, in order."""
    functions = (
        stream_share,
        unary_share,
        perf_analyzer_against_triton,
        stream_against_triton,
        shared_memory,
        one_example,
        batching_gain,
        narrow_wire,
        first_prediction,
        peak_memory,
        small_requests,
    )
    return [function(measured) for function in functions]


def stream_share(measured: Measured) -> Goal:
    """Stream compared with the raw TCP socket."""
    parts = _Parts(measured)
    parts.rates("stream", "raw_tcp", _ALL, 0.88)
    return parts.goal(
        "stream share of the raw socket", "stream >= 0.88 of the raw TCP socket, n=1024"
    )


def unary_share(measured: Measured) -> Goal:
    """One request of all rows compared with a stream of them."""
    parts = _Parts(measured)
    parts.rates("unary", "stream", _ALL, 0.8)
    return parts.goal("one large request", "unary >= 0.8 of the stream, n=1024")


def perf_analyzer_against_triton(measured: Measured) -> Goal:
    """The same client, perf_analyzer, on this server and on Triton."""
    parts = _Parts(measured)
    for batch_size, threshold in _PERF_GOALS.items():
        parts.rates("service_perf", "triton_perf", batch_size, threshold)
    text = "perf_analyzer on this server >= 1.2x (n=1) and 1.5x on Triton, gRPC"
    return parts.goal("perf_analyzer against Triton", text)


def stream_against_triton(measured: Measured) -> Goal:
    """Client and server against tritonclient and Triton."""
    parts = _Parts(measured)
    parts.rates("stream", "triton", _ALL, 15)
    return parts.goal("stream against Triton", "stream >= 15x tritonclient with Triton, n=1024")


def shared_memory(measured: Measured) -> Goal:
    """Shared memory compared with in process, and with Triton's shared memory."""
    parts = _Parts(measured)
    sizes = [size for size in measured.sizes() if size >= 16]
    for batch_size in sizes:
        parts.rates("shm", "local", batch_size, 0.9)
    for batch_size in sizes:
        parts.rates("shm", "triton_shm", batch_size, 3)
    return parts.goal(
        "shared memory", "shared memory >= 0.9 of in process, >= 3x Triton's, n >= 16"
    )


def one_example(measured: Measured) -> Goal:
    """Latency of one example."""
    unary, local = measured.cell("unary", 1), measured.cell("local", 1)
    text = "one example over gRPC: p50 <= 1.6x in process"
    if unary is None or local is None:
        return Goal("latency of one example", text, (), ("unary / local, n=1",))
    p50_ratio = ratio(unary.p50_ns, local.p50_ns)
    return Goal(
        "latency of one example",
        text,
        (Criterion("p50 of unary / local, n=1", p50_ratio, 1.6, at_most=True),),
    )


def batching_gain(measured: Measured) -> Goal:
    """Rate with batching over the rate without."""
    text = "16 clients of one example each >= 2.5x the same server with batching off"
    concurrency = measured.concurrency
    if concurrency is None:
        return Goal(BATCHING_GAIN, text, (), ("batching / no batching",))
    part = Criterion(
        "batching / no batching", ratio(concurrency.batching, concurrency.no_batching), 2.5
    )
    closed = ", ".join(
        f"{name} {count:,}" for name, count in sorted(concurrency.batches_closed.items())
    )
    notes = [
        f"{concurrency.rows_per_execution:.1f} rows an execution; {closed or 'no close reasons'}"
    ]
    if concurrency.wrong_labels:
        notes.append(f"{concurrency.wrong_labels} WRONG labels")
    return Goal(BATCHING_GAIN, text, (part,), notes=tuple(notes))


def narrow_wire(measured: Measured) -> Goal:
    """Fewer bytes on the wire."""
    text = "stream of float16 >= 1.5x, of int8 >= 2.2x that of float32"
    narrow = measured.narrow
    if narrow is None:
        return Goal(NARROW_WIRE, text, (), tuple(f"{wire} / float32" for wire in WIRES))
    parts, notes = [], []
    wide = narrow.cell("stream").rows_per_s
    for wire in WIRES:
        system = f"stream_{wire}"
        rates = narrow.cell(system).rows_per_s
        gain = ratio(rates, wide)
        parts.append(Criterion(f"{wire} / float32", gain, _WIRE_GOALS[wire]))
        ready = ratio(narrow.cell(f"{system}_ready").rows_per_s, wide)
        notes.append(
            f"{wire}: {narrow.agreement(system):.2%} of the labels agree; "
            f"for rows that are {wire} already: {ready:.3g} of {ready.pairs} pairs"
        )
    return Goal(NARROW_WIRE, text, tuple(parts), notes=tuple(notes))


def first_prediction(measured: Measured) -> Goal:
    """Time to a stream's first answer."""
    text = "stream of 1024: first prediction after <= 5% of the time to the last"
    cell = measured.cell("stream", _ALL)
    if cell is None:
        return Goal("first prediction of a stream", text, (), (f"stream, n={_ALL}",))
    share = ratio(cell.first_share, [1.0] * len(cell.first_share))
    return Goal(
        "first prediction of a stream",
        text,
        (Criterion("first / last", share, 0.05, at_most=True),),
    )


def peak_memory(measured: Measured) -> Goal:
    """The server's memory during a stream that exceeds its budget."""
    text = "the server's peak memory while a stream comes in <= weights + 256 MiB"
    memory = measured.memory
    if memory is None:
        return Goal(PEAK_MEMORY, text, (), ("peak memory",))
    limit = memory.weights_mib + _WEIGHTS_AND_MIB
    # The limit applies to the worst stream, not to the median.
    used = ratio([max(memory.peaks_mib)], [limit])
    notes = (
        f"{memory.idle_mib:,.0f} MiB idle, at most {max(memory.peaks_mib):,.0f} MiB while "
        f"{memory.stream_mib:,.0f} MiB arrived; after {len(memory.after_mib)} streams "
        f"{memory.drift_mib:+,.1f} MiB compared with the resident memory after the first",
    )
    part = Criterion(f"highest peak / {limit:,.0f} MiB", used, 1, at_most=True)
    return Goal(PEAK_MEMORY, text, (part,), notes=notes)


def small_requests(measured: Measured) -> Goal:
    """Requests of 256 bytes: the cost of a request itself."""
    text = f"64 features: <= {_SMALL_REQUEST_US} us of processor time, perf_analyzer >= Triton"
    small = measured.small_requests
    if small is None:
        return Goal(SMALL_REQUESTS, text, (), ("small requests",))
    parts, missing = [], []
    client = "perf_analyzer" if small.perf_us else "this client"
    for concurrency, values_us in (small.perf_us or small.server_us).items():
        cost = ratio(values_us, [_SMALL_REQUEST_US] * len(values_us))
        what = f"processor time / {_SMALL_REQUEST_US} us, {client}, {concurrency} in flight"
        parts.append(Criterion(what, cost, 1, at_most=True))
    for concurrency in small.server_us:
        what = f"service_perf / triton_perf, {concurrency} in flight"
        if concurrency in small.triton_perf:
            rates = small.service_perf[concurrency], small.triton_perf[concurrency]
            parts.append(Criterion(what, ratio(*rates), 1))
        else:
            missing.append(what)
    notes = [f"perf_analyzer: {small.skipped}"] if small.skipped else []
    if small.perf_us:
        costs = ", ".join(
            f"{statistics.median(values_us):.0f} us at {concurrency}"
            for concurrency, values_us in small.server_us.items()
        )
        notes.append(f"requests of this client, in flight: {costs}")
    return Goal(SMALL_REQUESTS, text, tuple(parts), tuple(missing), tuple(notes))
