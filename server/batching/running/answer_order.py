"""Keep the answers of a client in order while several batches run at the same time."""

import threading
from collections.abc import Callable, Collection

HandOut = Callable[[Collection[str]], object]


class _Turn:
    """A batch, with the clients that have no answer from it yet.

    `begun`: those of them whose answers are being handed out. `hand_out` is None while it runs.
    """

    __slots__ = ("begun", "clients", "hand_out")

    def __init__(self, clients: set[str]) -> None:
        self.clients = clients
        self.begun: set[str] = set()
        self.hand_out: HandOut | None = None


class AnswerOrder:
    """Hands out the results of batches.

    Where a batch ends before an earlier one that has rows of the same client, that client's results
    wait, but not the worker: the one that ends the earlier batch hands out both. So the answers of
    a client, and the slices of a request, come in the order in which they were taken. Results of
    other clients do not wait.
    """

    def __init__(self) -> None:
        # In the order of taking.
        self._turns: dict[object, _Turn] = {}
        self._lock = threading.Lock()

    def taken(self, batch: object, clients: set[str]) -> None:
        """Note a batch with rows of these clients; to be called in the order of taking."""
        with self._lock:
            self._turns[batch] = _Turn(clients)

    def ended(self, batch: object, hand_out: HandOut) -> None:
        """Call `hand_out`, which must not raise, with clients whose turn it is: now, or later."""
        with self._lock:
            self._turns[batch].hand_out = hand_out
            ready = self._ready_locked()
        while ready is not None:
            batch, hand_out, clients = ready
            hand_out(clients)
            with self._lock:
                self._turns[batch].clients -= clients
                if not self._turns[batch].clients:
                    del self._turns[batch]
                ready = self._ready_locked()

    def _ready_locked(self) -> tuple[object, HandOut, set[str]] | None:
        """A batch that has ended, with clients that wait for none before, and for no worker."""
        ahead: set[str] = set()
        for batch, turn in self._turns.items():
            clients = turn.clients - turn.begun - ahead
            if turn.hand_out is not None and clients:
                turn.begun |= clients
                return batch, turn.hand_out, clients
            ahead |= turn.clients
        return None
