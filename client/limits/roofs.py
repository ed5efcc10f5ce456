"""Measure every roof that there is on this machine."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from client.errors import UsageError
from client.limits import gemm, memory, pcie, wire

GEMM, READ, COPY, FRESH = "gemm", "memory read", "copy", "copy, fresh memory"
TCP, UNIX, PCIE = "tcp", "unix socket", "pcie"

WHAT = {
    GEMM: "multiply-adds of ONNX Runtime on matrices that fit the caches, as two operations each",
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
    """A rate that the machine reached, in each of several rounds; what is above was never seen."""

    name: str
    unit: str
    rounds: tuple[float, ...]

    @property
    def best(self) -> float:
        """The roof itself: the fastest round."""
        return max(self.rounds)

    @property
    def median(self) -> float:
        """What the machine gives commonly."""
        return statistics.median(self.rounds)


def measure(
    rounds: int, dtype: str, threads: int, ep: str, report: Callable[[str], None]
) -> tuple[list[Roof], dict[str, str]]:
    """Roofs, and by name why others are not measured. UsageError where `ep` is not here."""
    report("copying memory")
    warm, fresh = memory.memcpy_gib_per_s(rounds)
    report("reading memory")
    found: dict[str, Sequence[float]] = {
        COPY: warm,
        FRESH: fresh,
        READ: memory.read_gib_per_s(rounds, threads),
    }
    report("sending over sockets")
    found |= {
        TCP: wire.gib_per_s(rounds, unix=False),
        UNIX: wire.gib_per_s(rounds, unix=True),
    }
    report("multiplying matrices")
    found[GEMM] = gemm.gflop_per_s(rounds, dtype, threads, ep)
    skipped = {}
    try:
        found[PCIE] = pcie.to_device_gib_per_s(rounds)
    except UsageError as error:
        skipped[PCIE] = str(error)
    return [Roof(n, UNITS[n], tuple(found[n])) for n in WHAT if n in found], skipped
