"""Decide who is next where several clients wait: whoever was given least so far."""

_KEPT = 64


class Turns:
    """Start-time fair queueing (Goyal, Vin, Cheng, 1996) over clients of equal weight.

    What waits is served by ascending turn. A client's turns advance by what each thing costs, so
    that a hundred streams of one client get as much as the single request of another, while a
    client that is alone is served in the order it asked. Nothing waits for ever: what comes later
    has a later turn. Not locked.
    """

    def __init__(self) -> None:
        self._reached = 0
        self._ends: dict[str, int] = {}
        self._most_ends = _KEPT

    def of(self, client: str, cost: int) -> int:
        """Turn of something of this client that costs so much."""
        turn = max(self._reached, self._ends.get(client, 0))
        self._ends[client] = turn + cost
        if len(self._ends) > self._most_ends:
            self._forget()
        return turn

    def reached(self, turn: int) -> None:
        """Something of this turn is served; nobody gets an earlier one from now on."""
        self._reached = max(self._reached, turn)

    def _forget(self) -> None:
        # Who has no more than whoever comes new need not be known.
        self._ends = {who: end for who, end in self._ends.items() if end > self._reached}
        self._most_ends = 2 * len(self._ends) + _KEPT
