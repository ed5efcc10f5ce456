"""Limit the bytes of requests that the server holds at once."""

import threading
import time
from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass, field

from server.batching.fair_queue import FairQueue
from server.batching.request import Caller
from server.errors import Cancelled, QueueFull, TooLarge

_ANYONE = Caller()


@dataclass(eq=False, slots=True)
class _Ticket:
    start_tag: int
    size_bytes: int
    called: threading.Event = field(default_factory=threading.Event)
    granted: bool = False


class ByteBudget:
    """A counter of free bytes on which requests wait."""

    def __init__(self, total_bytes: int) -> None:
        self._total = total_bytes
        self._used = 0
        self._fair_queue = FairQueue()
        self._waiting: list[_Ticket] = []
        self._lock = threading.Lock()

    @property
    def used_bytes(self) -> int:
        """Bytes held now."""
        return self._used

    def acquire(
        self,
        size_bytes: int,
        caller: Caller = _ANYONE,
        before_waiting: Callable[[], None] = lambda: None,
    ) -> None:
        """Take bytes, waiting until the caller's deadline at most.

        Waiting clients are served fairly. `before_waiting` is called once if there is a wait.
        Raises TooLarge if no wait could help, QueueFull if the deadline passes, Cancelled if
        the caller leaves.
        """
        if size_bytes > self._total:
            raise TooLarge(
                f"the request has {size_bytes} bytes, expected at most the server's whole budget "
                f"of {self._total}"
            )
        with self._lock:
            if not self._waiting and self._fits(size_bytes):
                self._used += size_bytes
                return
            ticket = _Ticket(self._fair_queue.start_tag(caller.client, size_bytes), size_bytes)
            insort(self._waiting, ticket, key=lambda each: each.start_tag)
        gone = True
        try:
            before_waiting()
            if caller.on_cancel(ticket.called.set):
                timeout_s = None
                if caller.deadline_ns is not None:
                    timeout_s = max(0.0, (caller.deadline_ns - time.monotonic_ns()) / 1e9)
                gone = ticket.called.wait(timeout_s)
        finally:
            granted = self._close(ticket)
        if not granted:
            if gone:
                raise Cancelled("the client gave the request up")
            raise QueueFull("the server's byte budget stayed exhausted until the deadline")

    def release(self, size_bytes: int) -> None:
        """Give bytes back."""
        with self._lock:
            self._used -= size_bytes
            self._grant()

    def _close(self, ticket: _Ticket) -> bool:
        """Remove a ticket from the queue; return whether it has its bytes."""
        with self._lock:
            if not ticket.granted:
                self._waiting.remove(ticket)
                # Those behind it may fit.
                self._grant()
            return ticket.granted

    def _grant(self) -> None:
        # In order, or small requests could overtake a large one forever.
        while self._waiting and self._fits(self._waiting[0].size_bytes):
            ticket = self._waiting.pop(0)
            self._used += ticket.size_bytes
            self._fair_queue.advance(ticket.start_tag)
            ticket.granted = True
            ticket.called.set()

    def _fits(self, size_bytes: int) -> bool:
        return self._used + size_bytes <= self._total
