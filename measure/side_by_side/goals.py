"""Say of each goal whether it is reached; every one is a function of what was measured."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from measure.core.comparison import ratio
from measure.core.verdict import Criterion, Goal
from measure.side_by_side.parts.concurrency import Concurrency
from measure.side_by_side.parts.memory import Memory
from measure.side_by_side.parts.narrow import WIRES, Narrow
from measure.side_by_side.rounds import Cell

# The size of an example that the goals are meant for.
GOAL_FEATURES = 262_144
_ALL = 1024
_WEIGHTS_AND_MIB = 256
_WIRE_GOALS = {"float16": 1.5, "int8": 2.2}


@dataclass(frozen=True, slots=True)
class Measured:
    """All that goals look at; None is what was not measured."""

    cells: Sequence[Cell]
    narrow: Narrow | None = None
    concurrency: Concurrency | None = None
    memory: Memory | None = None

    def cell(self, system: str, batch_size: int) -> Cell | None:
        """A cell whose every round succeeded; None if there is no such."""
        for cell in self.cells:
            if (cell.system, cell.batch_size) == (system, batch_size):
                return cell if cell.rows_per_s and cell.error is None else None
        return None

    def sizes(self) -> list[int]:
        """Batch sizes measured."""
        return sorted({cell.batch_size for cell in self.cells})


@dataclass(slots=True)
class _Parts:
    """Collects the parts of a goal, and names those that lack a side."""

    measured: Measured
    parts: list[Criterion] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def rates(self, a: str, b: str, batch_size: int, threshold: float) -> None:
        """Rows per second of a over those of b."""
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
        """The goal made of them."""
        return Goal(name, text, tuple(self.parts), tuple(self.missing))


def all_goals(measured: Measured) -> list[Goal]:
    """Every goal, in order."""
    functions = (p1, p2, p3, p4, p5, p6, p7, p8, p9)
    return [function(measured) for function in functions]


def p1(measured: Measured) -> Goal:
    """Stream against the raw TCP socket."""
    parts = _Parts(measured)
    parts.rates("stream", "raw_tcp", _ALL, 0.85)
    return parts.goal("P1", "stream >= 0.85 of the raw TCP socket, n=1024")


def p2(measured: Measured) -> Goal:
    """The same client, perf_analyzer, on this server and on Triton."""
    parts = _Parts(measured)
    for batch_size in (1, 4, 16, 64):
        parts.rates("service_perf", "triton_perf", batch_size, 1.5)
    return parts.goal("P2", "perf_analyzer on this server >= 1.5x on Triton, gRPC")


def p3(measured: Measured) -> Goal:
    """Client and server against tritonclient and Triton."""
    parts = _Parts(measured)
    parts.rates("stream", "triton", _ALL, 15)
    return parts.goal("P3", "stream >= 15x tritonclient with Triton, n=1024")


def p4(measured: Measured) -> Goal:
    """Shared memory against no network at all, and against Triton's shared memory."""
    parts = _Parts(measured)
    sizes = [size for size in measured.sizes() if size >= 16]
    for batch_size in sizes:
        parts.rates("shm", "local", batch_size, 0.9)
    for batch_size in sizes:
        parts.rates("shm", "triton_shm", batch_size, 3)
    return parts.goal("P4", "shared memory >= 0.9 of in process, >= 3x Triton's, n >= 16")


def p5(measured: Measured) -> Goal:
    """Latency of one example."""
    unary, local = measured.cell("unary", 1), measured.cell("local", 1)
    text = "one example over gRPC: p50 <= 2x in process"
    if unary is None or local is None:
        return Goal("P5", text, (), ("unary / local, n=1",))
    found = ratio(unary.p50_ns, local.p50_ns)
    return Goal("P5", text, (Criterion("p50 of unary / local, n=1", found, 2, at_most=True),))


def p6(measured: Measured) -> Goal:
    """What batching gains."""
    text = "16 clients of one example each >= 2.5x the same server with batching off"
    told = measured.concurrency
    if told is None:
        return Goal("P6", text, (), ("batching / no batching",))
    part = Criterion("batching / no batching", ratio(told.batching, told.no_batching), 2.5)
    closed = ", ".join(f"{name} {count:,}" for name, count in sorted(told.batches_closed.items()))
    notes = [f"{told.rows_per_execution:.1f} rows an execution; {closed or 'no reasons told'}"]
    if told.wrong_labels:
        notes.append(f"{told.wrong_labels} WRONG labels")
    return Goal("P6", text, (part,), notes=tuple(notes))


def p7(measured: Measured) -> Goal:
    """Fewer bytes on the wire."""
    text = "stream of float16 >= 1.5x, of int8 >= 2.2x that of float32"
    narrow = measured.narrow
    if narrow is None:
        return Goal("P7", text, (), tuple(f"{wire} / float32" for wire in WIRES))
    parts, notes = [], []
    wide = narrow.cell("stream").rows_per_s
    for wire in WIRES:
        system = f"stream_{wire}"
        found = ratio(narrow.cell(system).rows_per_s, wide)
        parts.append(Criterion(f"{wire} / float32", found, _WIRE_GOALS[wire]))
        ready = ratio(narrow.cell(f"{system}_ready").rows_per_s, wide)
        notes.append(
            f"{wire}: {narrow.agreement(system):.2%} of the labels agree; "
            f"of rows that are {wire} already: {ready:.3g} of {ready.pairs} pairs"
        )
    return Goal("P7", text, tuple(parts), notes=tuple(notes))


def p8(measured: Measured) -> Goal:
    """How soon a stream answers."""
    text = "stream of 1024: first prediction after <= 5% of the time to the last"
    cell = measured.cell("stream", _ALL)
    if cell is None:
        return Goal("P8", text, (), (f"stream, n={_ALL}",))
    found = ratio(cell.first_share, [1.0] * len(cell.first_share))
    return Goal("P8", text, (Criterion("first / last", found, 0.05, at_most=True),))


def p9(measured: Measured) -> Goal:
    """The server's memory under a stream that does not fit into it."""
    text = "the server's peak memory while a stream comes in <= weights + 256 MiB"
    memory = measured.memory
    if memory is None:
        return Goal("P9", text, (), ("peak memory",))
    limit = memory.weights_mib + _WEIGHTS_AND_MIB
    # A bound holds for the worst stream, not for the median one.
    found = ratio([max(memory.peaks_mib)], [limit])
    notes = (
        f"{memory.idle_mib:,.0f} MiB idle, at most {max(memory.peaks_mib):,.0f} MiB while "
        f"{memory.stream_mib:,.0f} MiB came in; after {len(memory.after_mib)} streams "
        f"{memory.drift_mib:+,.1f} MiB of what was resident after the first",
    )
    part = Criterion(f"highest peak / {limit:,.0f} MiB", found, 1, at_most=True)
    return Goal("P9", text, (part,), notes=notes)
