"""Place measured rates under the roofs of the machine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from measure.limits.memory import GIB
from measure.limits.peaks import COPY, GEMM, PCIE, READ, TCP, UNIX, Roof
from measure.limits.subject import Rate, Subject, Work

CLIENT = "client"

_SENT = {"unary", "stream"}
_ON_GPU = {"CUDAExecutionProvider", "TensorrtExecutionProvider"}


@dataclass(frozen=True, slots=True)
class Placed:
    """A point under its roofs: the rows per second that each roof alone would allow, by name.

    `intensity` is operations per byte that the execution reads from memory, `gflop_per_s` the
    point's own rate.
    """

    DERIVED: ClassVar = ("binding", "share")

    rate: Rate
    ceilings: Mapping[str, float]
    intensity: float
    gflop_per_s: float

    @property
    def binding(self) -> str:
        """The lowest roof."""
        return min(self.ceilings, key=lambda name: self.ceilings[name])

    @property
    def share(self) -> float:
        """Reached share of the lowest roof; if over 1, the roof was measured too low."""
        return self.rate.rows_per_s / self.ceilings[self.binding]


def place(
    subject: Subject, roofs: Sequence[Roof], clients: Mapping[tuple[str, int], float]
) -> list[Placed]:
    """Place every rate of a result; `clients` are the client's ceilings by mode and batch size."""
    best = {roof.name: roof.best for roof in roofs}
    return [_place(subject, rate, best, clients) for rate in subject.rates]


def intensity(work: Work, execution_rows: float) -> float:
    """Operations per byte: an execution reads each of its rows and all weights once."""
    return work.flop_per_row / (work.row_bytes + work.weight_bytes / execution_rows)


def _place(
    subject: Subject,
    rate: Rate,
    best: Mapping[str, float],
    clients: Mapping[tuple[str, int], float],
) -> Placed:
    work = subject.work
    wire = UNIX if subject.unix else TCP
    ceilings = {
        GEMM: best[GEMM] * 1e9 / work.flop_per_row,
        READ: best[READ] * GIB * intensity(work, rate.execution_rows) / work.flop_per_row,
    }
    if rate.mode in _SENT:
        # A received row is copied at least once on its way to the engine.
        ceilings[COPY] = best[COPY] * GIB / work.row_bytes
        ceilings[wire] = best[wire] * GIB / work.row_bytes
    if PCIE in best and rate.provider in _ON_GPU:
        ceilings[PCIE] = best[PCIE] * GIB / work.row_bytes
    client = clients.get((rate.mode, rate.batch_size or 0))
    if client is not None:
        ceilings[CLIENT] = client
    return Placed(
        rate=rate,
        ceilings=ceilings,
        intensity=intensity(work, rate.execution_rows),
        gflop_per_s=rate.rows_per_s * work.flop_per_row / 1e9,
    )
