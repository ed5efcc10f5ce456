"""Export every request of a load: kept by the load processes, written after each point."""

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from client.errors import UsageError
from command_line import extras
from measure.engine.schedule import Kind
from measure.load.export.csv_file import CsvFile
from measure.load.export.lines import Lines, Span, lines
from measure.load.summary import Asked

CSV, PARQUET = SUFFIXES = (".csv", ".parquet")


class ExportFile(Protocol):
    """A file that lines are added to."""

    def write(self, lines: Lines) -> None:
        """Add lines."""

    def close(self) -> None:
        """Complete the file."""


class Export:
    """The export of one command: `spools` is the folder for load processes to write to."""

    def __init__(self, file: ExportFile, spools: Path) -> None:
        self.spools = spools
        self._file = file
        self._points = 0

    def add(
        self, points: Sequence[Asked], taken: int, kinds: Sequence[Kind], *, whole: bool = False
    ) -> None:
        """Add the requests of a load that has ended, which made `points`; see Span."""
        for some in lines(self.spools, Span(points, self._points, taken, whole), kinds):
            self._file.write(some)
        self._points += len(points)
        for path in self.spools.iterdir():
            path.unlink()


def check(path: Path) -> None:
    """UsageError or MissingExtra if a file of this name cannot be written here."""
    if path.suffix not in SUFFIXES:
        raise UsageError(
            f"--export {path}: got {path.suffix or 'no suffix'!r}, expected .csv or .parquet"
        )
    if path.suffix == PARQUET:
        _parquet()


@contextlib.contextmanager
def exporting(path: Path | None, folder: Path) -> Iterator[Export | None]:
    """Write an export to `path` while the block runs; None: there is none.

    What load processes keep meanwhile is in a new folder in `folder`, an existing one.
    """
    if path is None:
        yield None
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file: ExportFile = CsvFile(path) if path.suffix == CSV else _parquet().ParquetFile(path)
    except OSError as error:
        raise UsageError(f"--export {path}: {error.strerror or error}") from None
    with (
        contextlib.closing(file),
        tempfile.TemporaryDirectory(prefix=".requests-", dir=folder) as spools,
    ):
        yield Export(file, Path(spools).absolute())


def _parquet() -> Any:
    return extras.imported("measure.load.export.parquet_file", "parquet", "--export FILE.parquet")
