"""Count calls of one kind from their arrival to their end, and let no more in than may be open."""

import threading

from server.errors import TooMany


class InFlight:
    """How many calls are open, of those that may be."""

    def __init__(self, most: int, what: str) -> None:
        """`what` the calls are called in the text for those that are refused."""
        self._most = most
        self._what = what
        self._open = 0
        self._changed = threading.Condition()

    def enter(self) -> bool:
        """Count one more, unless as many are open as may be; whether it was counted."""
        with self._changed:
            if self._open >= self._most:
                return False
            self._open += 1
            return True

    def leave(self) -> None:
        """Count one that was let in as over."""
        with self._changed:
            self._open -= 1
            if not self._open:
                self._changed.notify_all()

    def refusal(self) -> TooMany:
        """What a call that is not let in is told."""
        return TooMany(f"{self._most} {self._what} are open, the most allowed")

    def wait_until_idle(self, timeout_s: float) -> bool:
        """Wait for the count to be 0; whether it was within the time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._open == 0, timeout_s)
