"""Decide which rows of the queue make the next batch."""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, Protocol, TypeVar


class Waiting(Protocol):
    """An entry of the queue: rows, of which some may have been taken.

    Only entries with equal keys share a batch. `more_follows`: the sender announces another message
    of the same batch. `start_tag`: orders the queue; it advances with the rows that are taken.
    `in_place`: its rows can be run without a copy.
    """

    rows: int
    taken_rows: int
    arrived_ns: int
    more_follows: bool
    start_tag: int
    key: object

    @property
    def in_place(self) -> bool:
        """Whether it runs without a copy."""


W = TypeVar("W", bound=Waiting)

# One request's rows run in slices of this many groups, up to so many rows: longer executions gain
# nothing more, and a cancelled request should end soon.
_SLICE_GROUPS = 4
_SLICE_ROWS = 128


class CloseReason(StrEnum):
    """Why a batch took no more rows."""

    FULL = "full"  # it has the most rows that one execution takes
    START = "start"  # it has the first rows of several messages, to answer early
    IDLE = "idle"  # the worker was free, so waiting would gain nothing
    DELAY = "delay"  # the queue delay is over
    SHAPE = "shape"  # the next request differs in shape or in requested outputs
    BYTES = "bytes"  # senders wait for the byte budget, so no more rows can arrive
    DRAIN = "drain"  # the server is stopping


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a batch.

    `group_rows`: most rows copied together from several requests. `slice_rows`: most rows of one
    request run in place. `queue_delay_ns`: how long a request waits for others. `linger_ns`: how
    long requests that announce more wait for the next one; `first_rows`: how many of their rows
    make the first batch.
    """

    group_rows: int
    slice_rows: int
    queue_delay_ns: int = 0
    linger_ns: int = 20_000_000
    first_rows: int = 16

    @classmethod
    def of(cls, group_rows: int, most_rows: int, queue_delay_ns: int) -> "Limits":
        """Limits with slices that fit such groups; no execution takes over `most_rows`."""
        group_rows = min(group_rows, most_rows)
        slice_rows = max(group_rows, min(_SLICE_GROUPS * group_rows, _SLICE_ROWS))
        return cls(group_rows, min(slice_rows, most_rows), queue_delay_ns)


class Piece(Generic[W]):
    """Rows `start` up to `stop` of one request, `rows` of them."""

    __slots__ = ("request", "rows", "start", "stop")

    def __init__(self, request: W, start: int, stop: int) -> None:
        self.request = request
        self.start = start
        self.stop = stop
        self.rows = stop - start


class Batch(Generic[W]):
    """The pieces that one execution of the model takes, `rows` together."""

    __slots__ = ("closed", "pieces", "rows")

    def __init__(self, pieces: tuple[Piece[W], ...], closed: CloseReason) -> None:
        self.pieces = pieces
        self.closed = closed
        self.rows = sum([piece.rows for piece in pieces])


def wait_ns(
    queue: Iterable[Waiting], limits: Limits, now_ns: int, *, enough_rows: int, flush: bool
) -> tuple[int, CloseReason]:
    """How long the head of a non-empty queue should still wait, 0: run now, and the reason.

    `enough_rows` is the result of `rows_to_wait_for`.
    """
    rows = 0
    head: Waiting | None = None
    last_arrived_ns = 0
    all_announce_more = True
    for request in queue:
        if head is None:
            head = request
        elif request.key != head.key:
            return 0, CloseReason.SHAPE
        rows += request.rows - request.taken_rows
        if rows >= limits.group_rows:
            return 0, CloseReason.FULL
        all_announce_more &= request.more_follows
        last_arrived_ns = max(last_arrived_ns, request.arrived_ns)
    if head is None:
        raise ValueError("an empty queue has no head")
    if flush:
        return 0, CloseReason.BYTES
    if all_announce_more:
        if rows >= enough_rows:
            return 0, CloseReason.START
        # Wait only while messages keep arriving.
        left_ns = last_arrived_ns + limits.linger_ns - now_ns
    else:
        left_ns = head.arrived_ns + limits.queue_delay_ns - now_ns
    if left_ns > 0:
        return left_ns, CloseReason.DELAY
    return 0, CloseReason.DELAY if all_announce_more or limits.queue_delay_ns else CloseReason.IDLE


def rows_to_wait_for(before: int, batch: Batch[W], limits: Limits) -> int:
    """Rows to wait for from requests that announce more, after `batch` was taken.

    Few at first, because the first answer waits for all of them; then twice as many each time,
    because large batches cost less per row.
    """
    if batch.pieces[-1].request.more_follows:
        return min(2 * before, limits.group_rows)
    return limits.first_rows


def place(queue: deque[W], request: W) -> None:
    """Insert a request into a queue by its start tag, after equal tags."""
    if not queue or queue[-1].start_tag <= request.start_tag:
        queue.append(request)
    else:
        queue.insert(
            bisect_right(queue, request.start_tag, key=lambda each: each.start_tag), request
        )


def take(queue: deque[W], limits: Limits, closed: CloseReason) -> Batch[W]:
    """Remove the next batch from the head of a non-empty queue.

    A request with enough rows of its own runs alone, without a copy; others are
    gathered, in order, while their keys are equal.
    """
    head = queue[0]
    left = head.rows - head.taken_rows
    if left >= limits.group_rows:
        most = limits.slice_rows if head.in_place else limits.group_rows
        piece = _advance(queue, min(left, most))
        return Batch((piece,), CloseReason.FULL)
    pieces: list[Piece[W]] = []
    room = limits.group_rows
    while queue and room and queue[0].key == head.key:
        left = queue[0].rows - queue[0].taken_rows
        if left > room and left >= limits.group_rows:
            break  # it is large enough to run alone, in place
        piece = _advance(queue, min(left, room))
        pieces.append(piece)
        room -= piece.rows
    return Batch(tuple(pieces), closed)


def _advance(queue: deque[W], rows: int) -> Piece[W]:
    request = queue[0]
    piece = Piece(request, request.taken_rows, request.taken_rows + rows)
    request.taken_rows = piece.stop
    request.start_tag += rows
    if piece.stop == request.rows:
        queue.popleft()
    elif len(queue) > 1 and queue[1].start_tag < request.start_tag:
        # Other clients come before the rest of it.
        place(queue, queue.popleft())
    return piece
