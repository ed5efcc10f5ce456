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
        self._again = False  # something was freed since the timer was started

    @contextlib.contextmanager
    def around(self, message_bytes: int) -> Iterator[None]:
        """Surround the handling of a message of this size."""
        self.began(message_bytes)
        try:
            yield
        finally:
            self.ended(message_bytes)

    def began(self, message_bytes: int) -> None:
        """A message of this size is handled from now on."""
        if message_bytes > malloc.LARGEST_KEPT_BYTES:
            self._stop()

    def ended(self, message_bytes: int) -> None:
        """A message of this size was handled."""
        if message_bytes > malloc.LARGEST_KEPT_BYTES:
            self._stop()
            self.trim_soon()

    def trim_soon(self) -> None:
        """Schedule a trim after a pause; one that is scheduled is followed by another."""
        with self._lock:
            if self._timer is None:
                self._start_locked()
            else:
                self._again = True

    def _start_locked(self) -> None:
        self._again = False
        self._timer = threading.Timer(_QUIET_S, self._trim)
        self._timer.daemon = True
        self._timer.start()

    def _trim(self) -> None:
        malloc.give_back()
        with self._lock:
            if self._timer is not threading.current_thread():
                return  # stopped meanwhile
            self._timer = None
            # It may have been freed after the trim.
            if self._again:
                self._start_locked()

    def _stop(self) -> None:
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
