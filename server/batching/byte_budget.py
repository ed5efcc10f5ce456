"""Limit the bytes of requests that the server holds at once."""

import threading
import time
from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass

from server.batching.fair_queue import FairQueue
from server.batching.request import Caller
from server.errors import Cancelled, QueueFull, TooLarge, TooMany

_ANYONE = Caller()


@dataclass(eq=False, slots=True)
class Ticket:
    """A request for bytes; `on_granted` is called if they are granted later, and must not block."""

    start_tag: int
    size_bytes: int
    on_granted: Callable[[], object]
    granted: bool = False
    # What its owner holds already, and keeps while it waits; None for one that holds nothing.
    held_bytes: int | None = None


class ByteBudget:
    """A counter of free bytes on which requests wait."""

    def __init__(self, total_bytes: int) -> None:
        self._total = total_bytes
        self._used = 0
        self._fair_queue = FairQueue()
        self._waiting: list[Ticket] = []
        # Of those that hold bytes and need more. They come first: what they hold is free then.
        self._growing: list[Ticket] = []
        self._lock = threading.Lock()

    @property
    def used_bytes(self) -> int:
        """Bytes held now."""
        return self._used

    @property
    def total_bytes(self) -> int:
        """Bytes that may be held."""
        return self._total

    @property
    def short(self) -> bool:
        """Whether somebody waits for bytes."""
        return bool(self._waiting or self._growing)

    def take(self, size_bytes: int) -> bool:
        """Take bytes that are free and that nobody waits for; False where there are none.

        What was taken is given back by `release`.
        """
        with self._lock:
            if self._waiting or self._growing or self._used + size_bytes > self._total:
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
            if not self._waiting and not self._growing and self._fits(size_bytes):
                self._used += size_bytes
                return Ticket(0, size_bytes, on_granted, granted=True)
            start_tag = self._fair_queue.start_tag(client, size_bytes)
            ticket = Ticket(start_tag, size_bytes, on_granted)
            insort(self._waiting, ticket, key=lambda each: each.start_tag)
        return ticket

    def grow(self, held_bytes: int, more_bytes: int, on_granted: Callable[[], object]) -> Ticket:
        """Ask, without waiting, for bytes beside those that the caller holds, as `ask` does.

        Raises TooLarge if no wait could help, TooMany if callers would wait for each other.
        """
        refusal = self.refusal(held_bytes + more_bytes)
        if refusal is not None:
            raise refusal
        with self._lock:
            if not self._growing and self._fits(more_bytes):
                self._used += more_bytes
                return Ticket(0, more_bytes, on_granted, granted=True)
            growing = [*self._growing, Ticket(0, more_bytes, on_granted, held_bytes=held_bytes)]
            # All others that hold bytes give them back in the end; these do once they have more.
            kept = sum(each.held_bytes or 0 for each in growing)
            if any(kept + each.size_bytes > self._total for each in growing):
                raise TooMany(
                    f"the request needs {more_bytes} bytes beside its own, and others that wait "
                    f"for more hold {kept - held_bytes} of the server's budget of {self._total}"
                )
            self._growing = growing
        return growing[-1]

    def charge(self, size_bytes: int, beyond_bytes: int) -> bool:
        """Count bytes that are there already, even if there is no room for them.

        False if more than `beyond_bytes` would be held beyond the total.
        """
        with self._lock:
            if self._used + size_bytes > self._total + beyond_bytes:
                return False
            self._used += size_bytes
        return True

    def withdraw(self, ticket: Ticket) -> bool:
        """Withdraw a ticket; return whether it has its bytes."""
        with self._lock:
            if not ticket.granted:
                (self._waiting if ticket.held_bytes is None else self._growing).remove(ticket)
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
            if self._waiting or self._growing:
                self._grant()

    def _grant(self) -> None:
        while self._growing and self._fits(self._growing[0].size_bytes):
            self._give(self._growing.pop(0))
        if self._growing:
            return
        # In order, or small requests could overtake a large one forever.
        while self._waiting and self._fits(self._waiting[0].size_bytes):
            ticket = self._waiting.pop(0)
            self._fair_queue.advance(ticket.start_tag)
            self._give(ticket)

    def _give(self, ticket: Ticket) -> None:
        self._used += ticket.size_bytes
        ticket.granted = True
        ticket.on_granted()

    def _fits(self, size_bytes: int) -> bool:
        return self._used + size_bytes <= self._total
