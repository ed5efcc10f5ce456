"""Keep the answers of a client in order while several batches run at the same time."""

import threading
from collections.abc import Callable, Set


class _Turn:
    """A batch that runs, or waits for an earlier one with rows of the same clients."""

    __slots__ = ("clients", "hand_out", "handing_out")

    def __init__(self, clients: Set[str]) -> None:
        self.clients = clients
        self.hand_out: Callable[[], object] | None = None
        self.handing_out = False


class AnswerOrder:
    """Hands out the results of batches.

    A batch that ends before an earlier one of the same client waits for it, but not its worker: the
    one that ends the earlier batch hands out both. So the answers of a client, and the slices of a
    request, come in the order in which they were taken, and other clients do not wait for them.
    """

    def __init__(self) -> None:
        # In the order of taking.
        self._turns: dict[object, _Turn] = {}
        self._lock = threading.Lock()

    def taken(self, batch: object, clients: Set[str]) -> None:
        """Note a batch with rows of these clients; to be called in the order of taking."""
        with self._lock:
            self._turns[batch] = _Turn(clients)

    def ended(self, batch: object, hand_out: Callable[[], object]) -> None:
        """Call `hand_out`, which must not raise, as soon as it is its turn: now, or later."""
        with self._lock:
            self._turns[batch].hand_out = hand_out
            ready = self._ready_locked()
        while ready is not None:
            batch, hand_out = ready
            hand_out()
            with self._lock:
                del self._turns[batch]
                ready = self._ready_locked()

    def _ready_locked(self) -> tuple[object, Callable[[], object]] | None:
        """A batch that has ended and waits for no other, if no worker hands it out already."""
        ahead: set[str] = set()
        for batch, turn in self._turns.items():
            waits = turn.handing_out or not ahead.isdisjoint(turn.clients)
            if turn.hand_out is not None and not waits:
                turn.handing_out = True
                return batch, turn.hand_out
            ahead |= turn.clients
        return None
