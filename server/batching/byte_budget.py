"""Limit the bytes of requests that the server holds at once."""

import threading
import time
from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass

from server.batching.fair_queue import FairQueue
from server.batching.request import Caller
from server.errors import Cancelled, QueueFull, TooLarge

_ANYONE = Caller()


@dataclass(eq=False, slots=True)
class Ticket:
    """A request for bytes; `on_granted` is called if they are granted later, and must not block."""

    start_tag: int
    size_bytes: int
    on_granted: Callable[[], object]
    granted: bool = False


class ByteBudget:
    """A counter of free bytes on which requests wait."""

    def __init__(self, total_bytes: int) -> None:
        self._total = total_bytes
        self._used = 0
        self._fair_queue = FairQueue()
        self._waiting: list[Ticket] = []
        self._lock = threading.Lock()

    @property
    def used_bytes(self) -> int:
        """Bytes held now."""
        return self._used

    def take(self, size_bytes: int) -> bool:
        """Take bytes that are free and that nobody waits for; False where there are none.

        What was taken is given back by `release`.
        """
        with self._lock:
            if self._waiting or self._used + size_bytes > self._total:
                return False
            self._used += size_bytes
        return True

    def refusal(self, size_bytes: int) -> TooLarge | None:
        """The error for a request that no wait could help; None for others."""
        if size_bytes <= self._total:
            return None
        return TooLarge(
            f"the request has {size_bytes} bytes, expected at most the server's whole budget "
            f"of {self._total}"
        )

    def ask(self, size_bytes: int, client: str, on_granted: Callable[[], object]) -> Ticket:
        """Ask for bytes without waiting; waiting clients are served fairly.

        Those of a ticket that is granted are given back by `release`, others are not waited for
        any more after `withdraw`. Raises TooLarge if no wait could ever help.
        """
        refusal = self.refusal(size_bytes)
        if refusal is not None:
            raise refusal
        with self._lock:
            if not self._waiting and self._fits(size_bytes):
                self._used += size_bytes
                return Ticket(0, size_bytes, on_granted, granted=True)
            start_tag = self._fair_queue.start_tag(client, size_bytes)
            ticket = Ticket(start_tag, size_bytes, on_granted)
            insort(self._waiting, ticket, key=lambda each: each.start_tag)
        return ticket

    def withdraw(self, ticket: Ticket) -> bool:
        """Withdraw a ticket; return whether it has its bytes."""
        with self._lock:
            if not ticket.granted:
                self._waiting.remove(ticket)
                # Those behind it may fit.
                self._grant()
            return ticket.granted

    def acquire(
        self,
        size_bytes: int,
        caller: Caller = _ANYONE,
        before_waiting: Callable[[], None] = lambda: None,
    ) -> None:
        """Take bytes, waiting until the caller's deadline at most.

        `before_waiting` is called once if there is a wait. Raises TooLarge as `ask` does, QueueFull
        if the deadline passes, Cancelled if the caller leaves.
        """
        called = threading.Event()
        ticket = self.ask(size_bytes, caller.client, called.set)
        if ticket.granted:
            return
        gone = True
        try:
            before_waiting()
            if caller.on_cancel(called.set):
                timeout_s = None
                if caller.deadline_ns is not None:
                    timeout_s = max(0.0, (caller.deadline_ns - time.monotonic_ns()) / 1e9)
                gone = called.wait(timeout_s)
        finally:
            granted = self.withdraw(ticket)
        if not granted:
            if gone:
                raise Cancelled("the client cancelled the request")
            raise QueueFull("the server's byte budget stayed exhausted until the deadline")

    def release(self, size_bytes: int) -> None:
        """Give bytes back."""
        with self._lock:
            self._used -= size_bytes
            if self._waiting:
                self._grant()

    def _grant(self) -> None:
        # In order, or small requests could overtake a large one forever.
        while self._waiting and self._fits(self._waiting[0].size_bytes):
            ticket = self._waiting.pop(0)
            self._used += ticket.size_bytes
            self._fair_queue.advance(ticket.start_tag)
            ticket.granted = True
            ticket.on_granted()

    def _fits(self, size_bytes: int) -> bool:
        return self._used + size_bytes <= self._total
