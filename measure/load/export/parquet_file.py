"""Write an export as Parquet; needs the extra [parquet]."""

from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from measure.load.export.lines import COLUMNS, Lines, Type

_TYPES: dict[Type, pa.DataType] = {
    "integer": pa.int64(),
    "number": pa.float64(),
    "text": pa.dictionary(pa.int32(), pa.string()),
}
_SCHEMA = pa.schema([(name, _TYPES[kind]) for name, kind in COLUMNS.items()])


class ParquetFile:
    """A Parquet file; values that are unknown are null."""

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        self._writer = parquet.ParquetWriter(path, _SCHEMA, compression="zstd")

    def write(self, lines: Lines) -> None:
        """Add lines as a row group."""
        self._writer.write_table(pa.Table.from_pydict(lines, schema=_SCHEMA))

    def close(self) -> None:
        """Write the footer, without which the file cannot be read."""
        self._writer.close()
