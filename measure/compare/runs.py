"""Hold what was measured of several execution providers, one beside the other."""

from dataclasses import dataclass

from measure.sweep.summary import Point, percentile


@dataclass(frozen=True, slots=True)
class Provider:
    """One contender: its label, what `--ep` said, how its server did; None and () without one.

    `options`: other options of the server, as NAME=VALUE.
    """

    label: str
    spec: str
    start_ups_ns: tuple[int, ...]
    server_peak_rss_bytes: int | None
    options: tuple[str, ...] = ()

    @property
    def start_up_ns(self) -> int | None:
        """Median time from the start of the process until the model was ready."""
        return percentile(self.start_ups_ns, 50) if self.start_ups_ns else None


@dataclass(frozen=True, slots=True)
class Cell:
    """What one provider did in one mode at one batch size.

    `rounds_ns` is the median latency of each round, whose i-th was measured next to the i-th of
    the other providers; it has none where a batch of the cell failed.
    """

    provider: str
    point: Point
    rounds_ns: tuple[int, ...]

    @property
    def agreement(self) -> float | None:
        """Share of labels that equal the float64 reference's, or that a near tie explains."""
        rows = self.point.rows
        return 1 - self.point.wrong_labels / rows if rows else None


@dataclass(frozen=True, slots=True)
class Measured:
    """All that was measured: one cell per mode, batch size and provider."""

    providers: tuple[Provider, ...]
    cells: tuple[Cell, ...]

    @property
    def modes(self) -> list[str]:
        """Modes in the order measured."""
        return list(dict.fromkeys(cell.point.mode for cell in self.cells))

    @property
    def batch_sizes(self) -> list[int]:
        """Batch sizes, rising."""
        return sorted({cell.point.batch_size for cell in self.cells})

    def cell(self, mode: str, batch_size: int, provider: str) -> Cell:
        """The cell of a mode, batch size and provider."""
        (found,) = (
            cell
            for cell in self.cells
            if (cell.point.mode, cell.point.batch_size, cell.provider)
            == (mode, batch_size, provider)
        )
        return found
