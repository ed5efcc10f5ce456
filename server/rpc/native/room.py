"""Bytes of the server's budget for a message, taken before its payload is read."""

from collections.abc import Callable

from server.batching.byte_budget import ByteBudget, Ticket


class Room:
    """What one message holds of a budget; the I/O thread asks and any thread gives it back."""

    __slots__ = ("_budget", "_client", "_on_granted", "_ticket", "_when_full")

    def __init__(
        self,
        budget: ByteBudget,
        client: str,
        on_granted: Callable[[], object],
        when_full: Callable[[], None],
    ) -> None:
        """`on_granted` is called when room comes later, `when_full` when it has to be waited for.

        Both must not block.
        """
        self._budget = budget
        self._client = client
        self._on_granted = on_granted
        self._when_full = when_full
        self._ticket: Ticket | None = None

    def ask(self, size_bytes: int) -> bool:
        """Ask for room, in place of what was taken before; whether it is there already.

        TooLarge where it never can be.
        """
        self.give_back()
        self._ticket = ticket = self._budget.ask(size_bytes, self._client, self._on_granted)
        if ticket.granted:
            return True
        # Room may have to come from what a queue holds back, waiting for more.
        self._when_full()
        return False

    def give_back(self) -> None:
        """Give back what was taken, or stop waiting for it."""
        ticket, self._ticket = self._ticket, None
        if ticket is not None and self._budget.withdraw(ticket):
            self._budget.release(ticket.size_bytes)
