"""The systems that are measured side by side, and a turn of one."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from measure.sweep.modes import Mode

# A turn of small batches is long enough for a clock, one of large batches short enough for rounds.
_TURN_ROWS = 64


@dataclass(frozen=True, slots=True)
class Turn:
    """Batches of one size, measured one after the other.

    `latencies_ns` [batches] are times to the last prediction, `first_ns` [batches] to the first;
    `labels` int64 [batches, rows].
    """

    latencies_ns: tuple[int, ...]
    first_ns: tuple[int, ...]
    labels: NDArray[Any]

    @property
    def rows_per_s(self) -> float:
        """Rows answered, divided by the time of all batches."""
        return self.labels.size * 1e9 / sum(self.latencies_ns)

    @property
    def p50_ns(self) -> float:
        """Median latency of a batch."""
        return float(np.median(self.latencies_ns))

    @property
    def first_share(self) -> float:
        """Median over the batches: time to the first prediction over time to the last."""
        return float(np.median(np.divide(self.first_ns, self.latencies_ns)))


class System(Protocol):
    """A system that predicts; `kind` is limit, service or peer."""

    name: str
    kind: str

    def turn(self, rows: int, starts: Sequence[int]) -> Turn:
        """Predict a batch of `rows` examples from each of `starts` on.

        RequestFailed if it rejects a batch, or its process has ended.
        """


class InProcess:
    """A system whose client runs in this process."""

    def __init__(self, name: str, kind: str, mode: Mode, examples: NDArray[Any]) -> None:
        self.name = name
        self.kind = kind
        self._mode = mode
        self._examples = examples

    def turn(self, rows: int, starts: Sequence[int]) -> Turn:
        """Predict batches one after the other."""
        latencies, first, labels = [], [], []
        for start in starts:
            x = self._examples[start : start + rows]
            started_ns = time.perf_counter_ns()
            prediction = self._mode.predict(x)
            latencies.append(prediction.done_ns - started_ns)
            first.append(prediction.first_ns - started_ns)
            labels.append(prediction.labels)
        return Turn(tuple(latencies), tuple(first), np.stack(labels))


def turn_starts(rows: int, examples: int, number: int) -> list[int]:
    """First examples of the batches of turn `number`; over all turns, every example is used."""
    batches = max(1, _TURN_ROWS // rows)
    slots = examples // rows
    return [(number * batches + i) % slots * rows for i in range(batches)]


def warm_up_starts(rows: int, examples: int) -> Iterator[int]:
    """First examples of the warm-up batches, which pay for memory and packing."""
    yield from turn_starts(rows, examples, 0)[:4]
