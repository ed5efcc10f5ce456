"""Choose how large the messages of a stream are.

A message with as many rows as the server gathers for one execution runs where it was received, and
no row is copied. The first message of a batch is smaller, so that its first answers come early. So
is every message where a large one would take long, as on a slow network: from its first byte on, a
message holds memory of the server.
"""

from dataclasses import dataclass

from client.batch import Batch

# Large enough that a message's fixed cost is small.
LEAST_BYTES = 8 * 2**20
MOST_BYTES = 64 * 2**20
# As many as the first batch of a stream has at the server.
_FIRST_ROWS = 16
_LONG_S = 0.5


@dataclass(frozen=True, slots=True)
class MessageLimit:
    """Limits of one message.

    `rows` 0: all rows of a batch; None: any number. `gathered_rows`: how many the server gathers
    for one execution, 0 if it does not say.
    """

    byte_size: int
    rows: int | None
    gathered_rows: int = 0


class MessageSize:
    """The size of the next message of one stream."""

    def __init__(self, limit: MessageLimit) -> None:
        self._limit = limit
        self._bytes_per_s = 0.0

    def next_rows(self, batch: Batch, start: int) -> slice:
        """The rows of `batch` that make the next message: from `start` on, at least one."""
        limit = self._limit
        if limit.rows == 0:
            return slice(0, len(batch))
        most_bytes = self._next_bytes(batch)
        end = batch.end_of(start, most_bytes, limit.rows)
        if start == 0 and end < len(batch):
            end = batch.end_of(0, min(self._first_bytes(batch), most_bytes), limit.rows)
        return slice(start, end)

    def sent(self, byte_size: int, seconds: float) -> None:
        """The last message, of so many bytes, was with the kernel after so long."""
        self._bytes_per_s = byte_size / max(seconds, 1e-9)

    def _next_bytes(self, batch: Batch) -> int:
        row_bytes = batch.row_bytes()
        gathered = min(self._limit.gathered_rows * row_bytes, MOST_BYTES)
        if gathered > self._bytes_per_s * _LONG_S:
            gathered = min(gathered, self._first_bytes(batch))
        return min(max(gathered, LEAST_BYTES), self._limit.byte_size)

    def _first_bytes(self, batch: Batch) -> int:
        return max(_FIRST_ROWS * batch.row_bytes(), LEAST_BYTES)
