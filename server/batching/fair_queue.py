"""Order the requests of several clients by start-time fair queueing."""

_KEPT = 64


class FairQueue:
    """Start tags and virtual time (Goyal, Vin, Cheng, 1996) for clients of equal weight.

    Waiting requests are served in the order of their start tags. A client's tags advance by the
    cost of each request, so that a hundred streams of one client get as much as the single request
    of another, while a client that is alone is served in the order it asked. Nothing starves: later
    requests get later tags. Not locked.
    """

    def __init__(self) -> None:
        self._virtual_time = 0
        self._finish_tags: dict[str, int] = {}
        self._most_tags = _KEPT

    def start_tag(self, client: str, cost: int) -> int:
        """Tag of a request of this client with this cost."""
        tag = max(self._virtual_time, self._finish_tags.get(client, 0))
        self._finish_tags[client] = tag + cost
        if len(self._finish_tags) > self._most_tags:
            self._forget()
        return tag

    def advance(self, tag: int) -> None:
        """Advance virtual time to a tag that is served; no later request gets an earlier one."""
        self._virtual_time = max(self._virtual_time, tag)

    def _forget(self) -> None:
        # A client whose tag is not ahead of virtual time is indistinguishable from a new one.
        self._finish_tags = {
            client: tag for client, tag in self._finish_tags.items() if tag > self._virtual_time
        }
        self._most_tags = 2 * len(self._finish_tags) + _KEPT
