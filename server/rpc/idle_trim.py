"""Return memory to the kernel after large messages have stopped arriving."""

import contextlib
import math
import threading
import time
from collections.abc import Iterator

from protos import malloc

_QUIET_S = 2.0


class IdleTrim:
    """Waits for a pause, because the next large message would need the memory again.

    Its thread is there from the start: there may be none left when memory is short.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._due_s: float | None = None  # of the next trim, time.monotonic
        self._again = False  # something was freed since that was set
        self._wakes_s = 0.0  # when the thread looks again by itself
        self._closed = False
        threading.Thread(target=self._run, name="idle-trim", daemon=True).start()

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
            with self._changed:
                self._due_s = None

    def ended(self, message_bytes: int) -> None:
        """A message of this size was handled."""
        if message_bytes > malloc.LARGEST_KEPT_BYTES:
            with self._changed:
                self._schedule_locked()

    def trim_soon(self) -> None:
        """Schedule a trim after a pause; one that is scheduled is followed by another."""
        with self._changed:
            if self._due_s is None:
                self._schedule_locked()
            else:
                self._again = True

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _schedule_locked(self) -> None:
        self._again = False
        self._due_s = time.monotonic() + _QUIET_S
        # It is not woken for each message.
        if self._due_s < self._wakes_s:
            self._changed.notify_all()

    def _run(self) -> None:
        while self._wait():
            malloc.give_back()
            with self._changed:
                # It may have been freed after the trim.
                if self._again and self._due_s is None:
                    self._schedule_locked()

    def _wait(self) -> bool:
        """Wait until a trim is due. False: closed."""
        with self._changed:
            while not self._closed:
                due_s, now_s = self._due_s, time.monotonic()
                if due_s is not None and due_s <= now_s:
                    self._due_s = None
                    return True
                self._wakes_s = math.inf if due_s is None else due_s
                self._changed.wait(None if due_s is None else due_s - now_s)
        return False
