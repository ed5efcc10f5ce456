"""Give memory back to the kernel once large messages have stopped coming."""

import contextlib
import threading
from collections.abc import Iterator

from protos import buffers

_QUIET_S = 2.0


class SpareMemory:
    """Waits for a pause, because a next large message would only have to fetch it all again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    @contextlib.contextmanager
    def around(self, message_bytes: int) -> Iterator[None]:
        """Surround the handling of a message of this size."""
        if message_bytes <= buffers.LARGEST_KEPT_BYTES:
            yield
            return
        self._replace(None)
        try:
            yield
        finally:
            timer = threading.Timer(_QUIET_S, buffers.give_back)
            timer.daemon = True
            self._replace(timer)

    def _replace(self, timer: threading.Timer | None) -> None:
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = timer
            if timer is not None:
                timer.start()
