"""Measure every roof of this machine."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from client.errors import UsageError
from measure.limits import gemm, memory, pcie, wire

GEMM, READ, COPY, FRESH = "gemm", "memory read", "copy", "copy, fresh memory"
TCP, UNIX, PCIE = "tcp", "unix socket", "pcie"

WHAT = {
    GEMM: "multiply-adds of ONNX Runtime on matrices that fit into the caches, two operations each",
    READ: "reading 256 MiB, all threads",
    COPY: "copying 256 MiB into memory in use, one core",
    FRESH: "copying 256 MiB into memory that the kernel must clear first, one core",
    TCP: "sending to another process over the loopback interface",
    UNIX: "sending to another process over a Unix socket",
    PCIE: "copying page-locked memory to the GPU",
}
UNITS = dict.fromkeys(WHAT, "GiB/s") | {GEMM: "GFLOP/s"}


@dataclass(frozen=True, slots=True)
class Roof:
    """A rate that the machine reached, in each of several rounds."""

    name: str
    unit: str
    rounds: tuple[float, ...]

    @property
    def best(self) -> float:
        """The roof itself: the fastest round."""
        return max(self.rounds)

    @property
    def median(self) -> float:
        """The typical round."""
        return statistics.median(self.rounds)


@dataclass(slots=True)
class Measured:
    """The roofs measured so far; `skipped` gives the reason for each missing one by name."""

    values: dict[str, Sequence[float]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def roofs(self) -> list[Roof]:
        """The measured roofs, in the order of WHAT."""
        values = self.values
        return [Roof(name, UNITS[name], tuple(values[name])) for name in WHAT if name in values]


def measure(
    rounds: int, dtype: str, threads: int, ep: str, report: Callable[[str], None], found: Measured
) -> None:
    """Measure every roof into `found`. UsageError if `ep` is not available."""
    report("copying memory")
    found.values[COPY], found.values[FRESH] = memory.memcpy_gib_per_s(rounds)
    report("reading memory")
    found.values[READ] = memory.read_gib_per_s(rounds, threads)
    report("sending over sockets")
    found.values[TCP] = wire.gib_per_s(rounds, unix=False)
    found.values[UNIX] = wire.gib_per_s(rounds, unix=True)
    report("multiplying matrices")
    found.values[GEMM] = gemm.gflop_per_s(rounds, dtype, threads, ep)
    try:
        found.values[PCIE] = pcie.to_device_gib_per_s(rounds)
    except UsageError as error:
        found.skipped[PCIE] = str(error)
