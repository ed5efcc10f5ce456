"""Count the bytes that clients send ahead of messages that have no room yet."""

import threading


class AheadBytes:
    """Of all connections of a server. Each stream may send as much ahead as its window allows.

    So many streams at once could hold much more than the messages that were admitted.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._used = 0
        self._lock = threading.Lock()

    @property
    def used_bytes(self) -> int:
        """Bytes held now."""
        return self._used

    def take(self, count: int) -> bool:
        """Count bytes that are to be kept; False: there is no room for them."""
        with self._lock:
            if self._used + count > self._most:
                return False
            self._used += count
            return True

    def give_back(self, count: int) -> None:
        """So many are not kept any more."""
        with self._lock:
            self._used -= count
