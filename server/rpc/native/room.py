"""Bytes of the server's budget for a message, taken before its payload is read."""

from collections.abc import Callable

from server.batching.byte_budget import ByteBudget, Ticket
from transport.serving.server_call import ServerCall


class Room:
    """What one message holds of a budget; the I/O thread asks and any thread gives it back."""

    __slots__ = ("_budget", "_call", "_taken_bytes", "_ticket", "_when_full")

    def __init__(self, budget: ByteBudget, call: ServerCall, when_full: Callable[[], None]) -> None:
        """The message of `call`, which is resumed when room comes later.

        `when_full` is called when it has to be waited for, and must not block.
        """
        self._budget = budget
        self._call = call
        self._when_full = when_full
        self._taken_bytes = 0
        self._ticket: Ticket | None = None  # of bytes that were not there at once

    def ask(self, size_bytes: int) -> bool:
        """Ask for room, in place of what was taken before; whether it is there already.

        TooLarge where it never can be.
        """
        if self._taken_bytes or self._ticket is not None:
            self.give_back()
        if self._budget.take(size_bytes):
            self._taken_bytes = size_bytes
            return True
        call = self._call
        self._ticket = ticket = self._budget.ask(size_bytes, call.peer, call.resume)
        if ticket.granted:
            return True
        # Room may have to come from what a queue holds back, waiting for more.
        self._when_full()
        return False

    def give_back(self) -> None:
        """Give back what was taken, or stop waiting for it."""
        if self._taken_bytes:
            taken, self._taken_bytes = self._taken_bytes, 0
            self._budget.release(taken)
        ticket, self._ticket = self._ticket, None
        if ticket is not None and self._budget.withdraw(ticket):
            self._budget.release(ticket.size_bytes)
