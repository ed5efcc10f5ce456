"""Count the open calls of one kind, and enforce a limit."""

import threading

from server.errors import TooMany


class InFlight:
    """The number of open calls, and its limit."""

    def __init__(self, most: int, what: str) -> None:
        """`what`: the name of the calls in the error text, plural."""
        self._most = most
        self._what = what
        self._open = 0
        self._changed = threading.Condition()

    def enter(self) -> bool:
        """Count one more call unless the limit is reached; return whether it was counted."""
        with self._changed:
            if self._open >= self._most:
                return False
            self._open += 1
            return True

    def leave(self) -> None:
        """Count an admitted call as ended."""
        with self._changed:
            self._open -= 1
            if not self._open:
                self._changed.notify_all()

    def refusal(self) -> TooMany:
        """The error for a call over the limit."""
        return TooMany(f"{self._most} {self._what} are open, the most allowed")

    def wait_until_idle(self, timeout_s: float) -> bool:
        """Wait until no call is open; return False on timeout."""
        with self._changed:
            return self._changed.wait_for(lambda: self._open == 0, timeout_s)
