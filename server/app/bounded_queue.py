"""A queue between threads that must not wait and one that may: what has no room is dropped."""

import contextlib
import queue
import threading
from typing import Generic, TypeVar

Item = TypeVar("Item")


class BoundedQueue(Generic[Item]):
    """Holds at most about `most` items: as many more as threads that put one at the same time.

    `put` takes no lock that the other side holds, so a thread that is slow to take holds up nobody.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        # Written in C: a thread that is interrupted within `put` blocks no other.
        self._items: queue.SimpleQueue[Item] = queue.SimpleQueue()
        self._dropped = 0
        self._lock = threading.Lock()

    @property
    def dropped(self) -> int:
        """Items for which there was no room so far."""
        return self._dropped

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return self._items.empty()

    def put(self, item: Item) -> None:
        """Add an item, or drop and count it."""
        if self._items.qsize() < self._most:
            self._items.put(item)
            return
        self.drop(1)

    def drop(self, count: int) -> None:
        """Count items that were lost elsewhere."""
        with self._lock:
            self._dropped += count

    def put_always(self, item: Item) -> None:
        """Add an item although there may be no room."""
        self._items.put(item)

    def take(self, most: int, timeout_s: float | None = None) -> list[Item]:
        """Wait for an item; up to `most` of those that are there. Empty after `timeout_s`."""
        items: list[Item] = []
        with contextlib.suppress(queue.Empty):
            items.append(self._items.get(timeout=timeout_s))
            while len(items) < most:
                items.append(self._items.get_nowait())
        return items
