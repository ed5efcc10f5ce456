"""Know how many inference calls are under way."""

import threading
from typing import Self


class Activity:
    """A count of the `with` blocks that are open."""

    def __init__(self) -> None:
        self._open = 0
        self._changed = threading.Condition()

    def __enter__(self) -> Self:
        with self._changed:
            self._open += 1
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._open -= 1
            self._changed.notify_all()

    def wait_until_idle(self, timeout_s: float) -> bool:
        """Wait for the count to be 0; whether it was within the time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._open == 0, timeout_s)
