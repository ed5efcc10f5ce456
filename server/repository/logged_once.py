"""Log findings that last once, not with every look."""

import logging
from collections.abc import Iterable

_MOST = 100


class LoggedOnce:
    """Warnings of one kind, each logged when it is new."""

    def __init__(self, log: logging.Logger, message: str, field: str) -> None:
        """`field`: that of the log line which has the text of a finding."""
        self._log = log
        self._message = message
        self._field = field
        self._known: frozenset[str] = frozenset()

    def update(self, texts: Iterable[str]) -> None:
        """Log those of all texts that hold now which did not hold before; 100 at a time."""
        found = list(texts)
        new = [text for text in found if text not in self._known]
        for text in new[:_MOST]:
            self._log.warning(self._message, extra={self._field: text})
        self._known = frozenset(found)
