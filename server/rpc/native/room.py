"""Bytes of the server's budget for a message, until its answer is gone."""

from collections.abc import Callable

from server.batching.byte_budget import ByteBudget, Ticket
from transport.serving.server_call import ServerCall

# What a message takes beside its own bytes, with its call and a small answer: a stream may hold
# hundreds of messages of a few bytes.
REQUEST_BYTES = 4 * 1024
# Of the answer, that is counted with these.
SMALL_ANSWER_BYTES = 1024
# Answers whose size the model does not state may exceed the budget by so much.
BEYOND_BYTES = 16 * 2**20


class Room:
    """What one message holds of a budget.

    The I/O thread asks. Any thread gives back the message's part, once, and its answer's.
    """

    __slots__ = (
        "_answer",
        "_budget",
        "_call",
        "_message_bytes",
        "_ticket",
        "_when_full",
        "grown",
    )

    def __init__(self, budget: ByteBudget, call: ServerCall, when_full: Callable[[], None]) -> None:
        """The message of `call`, which is resumed when room comes later.

        `when_full` is called when it has to be waited for, and must not block.
        """
        self._budget = budget
        self._call = call
        self._when_full = when_full
        self._message_bytes = 0
        self.grown = False  # the message asked again: it was compressed
        # Of the answer, with what the call takes. The thread that removes a part gives it back.
        self._answer: list[int] = []
        self._ticket: Ticket | None = None  # of bytes for the message that were not there at once

    def ask(self, length: int) -> bool:
        """Ask for room for a message of so many bytes; whether it is there already.

        A compressed message asks again once its size is known: it needs both until it is unpacked.
        Raises TooLarge where there never can be room, and as ByteBudget.grow does.
        """
        if self._answer or self._ticket is not None:
            self.grown = True
            return self.grow(length, self._call.resume)
        budget = self._budget
        size = length + REQUEST_BYTES
        if budget.take(size):
            self._message_bytes = length
            self._answer.append(REQUEST_BYTES)
            return True
        refusal = budget.refusal(length)
        if refusal is not None:
            raise refusal
        call = self._call
        # What fits alone passes, alone.
        size = min(size, budget.total_bytes)
        self._ticket = ticket = budget.ask(size, call.peer, call.resume)
        return self._is_granted(ticket)

    def grow(self, more_bytes: int, on_granted: Callable[[], object]) -> bool:
        """Ask for more bytes for the message; see `ask`. `on_granted` is called if they come later.

        Raises as ByteBudget.grow does.
        """
        self._settle()
        held = self._message_bytes + sum(self._answer)
        self._ticket = ticket = self._budget.grow(held, more_bytes, on_granted)
        return self._is_granted(ticket)

    def keep(self, length: int) -> None:
        """The message has so many bytes, and what it took beside them is free."""
        self._settle()
        surplus = self._message_bytes - length
        if surplus > 0:
            self._message_bytes = length
            self._budget.release(surplus)

    def expect(self, answer_bytes: int, on_granted: Callable[[], object]) -> bool:
        """Ask for room for an answer that is not small, as `grow` does.

        It takes its arrays, and these encoded.
        """
        if not self.grow(2 * answer_bytes, on_granted):
            return False
        self.expected(answer_bytes)
        return True

    def expected(self, answer_bytes: int) -> None:
        """What was granted is the answer's."""
        self._settle()
        self._message_bytes -= 2 * answer_bytes
        self._answer += [answer_bytes, answer_bytes]

    def cover(self, answer_bytes: int) -> bool:
        """Whether there is room for an encoded answer, which may have more bytes than expected."""
        parts = self._answer
        if len(parts) > 2:
            # Its arrays are needed no more.
            self._give_back_one()
        elif parts and answer_bytes <= REQUEST_BYTES:
            return True
        more = answer_bytes - sum(parts)
        if more > 0:
            if not self._budget.charge(more, BEYOND_BYTES):
                return False
            self._answer.append(more)
        return True

    def give_back_message(self) -> None:
        """The message is needed no more; or stop waiting for it."""
        ticket, self._ticket = self._ticket, None
        if ticket is not None and self._budget.withdraw(ticket):
            self._message_bytes += ticket.size_bytes
        taken, self._message_bytes = self._message_bytes, 0
        if taken:
            self._budget.release(taken)

    def give_back_answer(self) -> None:
        """The call has ended, and its answer is gone."""
        while self._answer:
            self._give_back_one()

    def _give_back_one(self) -> None:
        try:
            taken = self._answer.pop()
        except IndexError:
            return  # another thread took it
        self._budget.release(taken)

    def give_back(self) -> None:
        """Give back all, or stop waiting for it."""
        self.give_back_message()
        self.give_back_answer()

    def _is_granted(self, ticket: Ticket) -> bool:
        if ticket.granted:
            self._settle()
            return True
        # Room may have to come from what a queue holds back, waiting for more.
        self._when_full()
        return False

    def _settle(self) -> None:
        """Count what was granted."""
        ticket = self._ticket
        if ticket is None or not ticket.granted:
            return
        self._ticket = None
        self._message_bytes += ticket.size_bytes
        if not self._answer:
            # A message as large as the budget leaves nothing for the call.
            own = min(REQUEST_BYTES, ticket.size_bytes)
            self._message_bytes -= own
            self._answer.append(own)
