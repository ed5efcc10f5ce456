"""Write an export as CSV."""

import csv
from pathlib import Path

from measure.load.export.lines import COLUMNS, Lines


class CsvFile:
    """A CSV file with a heading; values that are unknown are empty."""

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        self._file = path.open("w", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file, lineterminator="\n")
        self._writer.writerow(COLUMNS)

    def write(self, lines: Lines) -> None:
        """Add lines."""
        self._writer.writerows(zip(*(lines[name] for name in COLUMNS), strict=True))

    def close(self) -> None:
        """Write the rest."""
        self._file.close()
