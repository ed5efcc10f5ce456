"""Return memory to the kernel after large messages have stopped arriving."""

import contextlib
import threading
from collections.abc import Iterator

from protos import malloc

_QUIET_S = 2.0


class IdleTrim:
    """Waits for a pause, because the next large message would need the memory again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    @contextlib.contextmanager
    def around(self, message_bytes: int) -> Iterator[None]:
        """Surround the handling of a message of this size."""
        if message_bytes <= malloc.LARGEST_KEPT_BYTES:
            yield
            return
        self._stop()
        try:
            yield
        finally:
            self._stop()
            self.trim_soon()

    def trim_soon(self) -> None:
        """Schedule a trim after a pause, unless one is scheduled."""
        with self._lock:
            if self._timer is None or not self._timer.is_alive():
                self._timer = threading.Timer(_QUIET_S, malloc.give_back)
                self._timer.daemon = True
                self._timer.start()

    def _stop(self) -> None:
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
