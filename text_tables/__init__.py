"""Tables for a terminal that lose no digit, however narrow it is."""

from text_tables.pairs import pairs
from text_tables.table import Column, Row, Table
from text_tables.width import new_console

__all__ = ["Column", "Row", "Table", "new_console", "pairs"]
