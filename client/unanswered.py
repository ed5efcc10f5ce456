"""Messages of a stream, each made once and kept until it is answered, to be sent again if need be.

A message in pieces is sent from the memory of its batch. If the batches come from an iterator, its
memory may be used for the next batch as soon as that is drawn. So messages without an answer
are copied before, unless the caller has promised to leave the arrays alone.
"""

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from client.batch import Batch
from client.connection.waiting import Series, Waiting
from client.errors import UsageError
from client.message_size import MessageLimit, MessageSize
from protos.codec import Pieces

# Makes a message of rows of a batch: its id, and whether more rows follow.
Encode = Callable[[Batch, slice, str, bool], Pieces]


class _Kept:
    """A message without an answer.

    `lent`: whether its memory is the caller's. `last`: whether it is the last one of its batch.
    """

    __slots__ = ("last", "lent", "pieces")

    def __init__(self, pieces: Pieces, *, lent: bool, last: bool) -> None:
        self.pieces = pieces
        self.lent = lent
        self.last = last

    def copy(self) -> None:
        """Depend on the caller's memory no more; a sender that has the pieces may go on."""
        if self.lent:
            self.pieces = (b"".join(self.pieces),)
            self.lent = False


class Unanswered:
    """Numbered messages of `batches`, read in the threads or tasks of streams that send them.

    That of a broken stream may still run when the next stream begins. `stable`: arrays of batches
    stay as they are until they are answered.
    """

    def __init__(
        self,
        batches: Series[Batch],
        encode: Encode,
        limit: MessageLimit,
        waiting: Waiting,
        *,
        stable: bool,
    ) -> None:
        self._batches = batches
        self._encode = encode
        self._size = MessageSize(limit)
        self._stable = stable
        self._ids = itertools.count()
        self._batch: Batch | None = None
        self._next_row = 0
        self._drawn = 0
        self._drawing = waiting.lock()
        # Never held while reading `batches`: answers must not wait for later batches.
        self._lock = threading.Lock()
        self._kept: deque[_Kept] = deque()
        self._answered = 0
        self._stream = 0
        self._exhausted = False
        self.failure: Exception | None = None

    def messages(self) -> "Messages":
        """Messages from the first without an answer to the last of all batches, for a new stream.

        Each is to be with the kernel before the next is asked for.
        """
        with self._lock:
            self._stream += 1
            return Messages(self, self._stream, self._answered)

    async def message(self, number: int, stream: int) -> Pieces | None:
        """A message by its number; None after the last, and for a stream that broke."""
        kept = self._kept_message(number)
        if kept is None:
            async with self._drawing:
                kept = self._kept_message(number) or await self._draw(stream)
        return None if kept is None else kept.pieces

    def sent(self, pieces: Pieces, seconds: float) -> None:
        """The kernel has a message, after so long."""
        self._size.sent(sum(map(len, pieces)), seconds)

    def answer(self) -> bool:
        """Drop the first message; whether it was the last one of its batch."""
        with self._lock:
            self._answered += 1
            return self._kept.popleft().last

    @property
    def complete(self) -> bool:
        """Whether every message of every batch was answered."""
        with self._lock:
            return self._exhausted and not self._kept

    def _kept_message(self, number: int) -> _Kept | None:
        with self._lock:
            at = number - self._answered
            # The thread of a broken stream may be behind.
            return self._kept[at] if 0 <= at < len(self._kept) else None

    async def _draw(self, stream: int) -> _Kept | None:
        try:
            if self._batch is None and not await self._draw_batch(stream):
                return None
            batch = self._batch
            assert batch is not None
            part = self._size.next_rows(batch, self._next_row)
            last = part.stop == len(batch)
            pieces = self._encode(batch, part, str(next(self._ids)), not last)
        except Exception as error:  # the transport would end the call with UNKNOWN
            self.failure = error
            return None
        self._next_row = part.stop
        if last:
            self._batch = None
        kept = _Kept(pieces, lent=not self._stable and _share(pieces, batch), last=last)
        with self._lock:
            self._kept.append(kept)
        return kept

    async def _draw_batch(self, stream: int) -> bool:
        """Draw the next batch; False at the end, and for a stream that broke."""
        with self._lock:
            unanswered = list(self._kept)
        for kept in unanswered:
            kept.copy()
        with self._lock:
            # A stream that began earlier may have taken messages that were not copied yet.
            if stream != self._stream:
                return False
        batch = await self._batches.next()
        if batch is None:
            self._exhausted = True
            return False
        number = self._drawn
        self._drawn += 1
        if not len(batch):
            raise UsageError(f"batch {number} of the stream has no rows; expected at least one")
        self._batch = batch
        self._next_row = 0
        return True


class Messages:
    """The messages of one stream: a Series."""

    def __init__(self, unanswered: Unanswered, stream: int, first: int) -> None:
        self._unanswered = unanswered
        self._stream = stream
        self._numbers = itertools.count(first)
        self._given: tuple[Pieces, float] | None = None

    async def next(self) -> Pieces | None:
        """The next message; None at the end. The kernel has the one before."""
        if self._given is not None:
            pieces, began_s = self._given
            self._unanswered.sent(pieces, time.monotonic() - began_s)
        message = await self._unanswered.message(next(self._numbers), self._stream)
        self._given = None if message is None else (message, time.monotonic())
        return message


def _share(pieces: Pieces, batch: Batch) -> bool:
    """Whether a message lies in the memory of its batch, not in that of converted rows."""
    views: Sequence[memoryview] = [piece for piece in pieces if isinstance(piece, memoryview)]
    return any(
        np.may_share_memory(np.frombuffer(view, np.uint8), array)
        for view in views
        if view.nbytes
        for array in batch.arrays.values()
    )
