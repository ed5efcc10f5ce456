"""Bound the bytes of requests that the server holds at once."""

import threading
import time
from collections import deque
from collections.abc import Callable

from server.errors import QueueFull, TooLarge


class ByteBudget:
    """A counter of free bytes that requests wait for."""

    def __init__(self, total_bytes: int) -> None:
        self._total = total_bytes
        self._used = 0
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    @property
    def used_bytes(self) -> int:
        """Bytes held now."""
        return self._used

    def acquire(
        self,
        size_bytes: int,
        deadline_ns: int | None = None,
        before_waiting: Callable[[], None] = lambda: None,
    ) -> None:
        """Take bytes, waiting for them until the deadline (monotonic clock) at most.

        `before_waiting` is called once if there is a wait. Raises TooLarge when no wait could ever
        help; QueueFull when the deadline passed.
        """
        if size_bytes > self._total:
            raise TooLarge(
                f"the request holds {size_bytes} bytes; the server's whole budget is {self._total}"
            )
        with self._changed:
            if not self._waiting and self._fits(size_bytes):
                self._used += size_bytes
                return
            ticket = object()
            self._waiting.append(ticket)
        try:
            before_waiting()
            self._wait(ticket, size_bytes, deadline_ns)
        finally:
            with self._changed:
                self._waiting.remove(ticket)
                # The next in line may fit already.
                self._changed.notify_all()

    def release(self, size_bytes: int) -> None:
        """Give bytes back."""
        with self._changed:
            self._used -= size_bytes
            self._changed.notify_all()

    def _wait(self, ticket: object, size_bytes: int, deadline_ns: int | None) -> None:
        # In turn, or small requests would pass a large one for ever.
        def ready() -> bool:
            return self._waiting[0] is ticket and self._fits(size_bytes)

        with self._changed:
            timeout = None if deadline_ns is None else (deadline_ns - time.monotonic_ns()) / 1e9
            if not self._changed.wait_for(ready, timeout):
                raise QueueFull("the server's byte budget stayed exhausted until the deadline")
            self._used += size_bytes

    def _fits(self, size_bytes: int) -> bool:
        return self._used + size_bytes <= self._total
