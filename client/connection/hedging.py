"""Send a slow request to a second server, too."""

import itertools
import time
from collections.abc import Sequence

from client.connection.call_options import left_s
from client.connection.channel import Balancing, open_channel
from client.connection.credentials import Credentials
from client.connection.waiting import Waiting
from client.errors import UsageError
from protos.codec import Pieces
from transport.calling.callables import CallMetadata
from transport.calling.client_call import ClientCall
from transport.calling.failures import undecided

_AT_A_TIME = 2


def check(addresses: Sequence[str], after_s: float) -> None:
    """Raise UsageError for one server, and for a time below 0."""
    if len(addresses) < 2:
        raise UsageError(f"got hedging with {addresses[0]} alone, expected two servers")
    if not after_s >= 0:
        raise UsageError(f"got hedging after {after_s:g} s, expected 0 or more")


class Hedging:
    """Sends single requests to servers in turn, over a channel to each.

    A request without an answer after `after_s` goes to the next server too, so at most two work on
    it; the first answer counts, the other call is cancelled. If a server is unavailable, or the
    call was cut, the next one gets the request at once; any other error counts as an answer.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        credentials: Credentials,
        balancing: Balancing,
        waiting: Waiting,
    ) -> None:
        self._channels = [
            open_channel((address,), credentials, balancing=balancing) for address in addresses
        ]
        self._waiting = waiting
        self._turns = itertools.count()

    async def call(
        self,
        path: str,
        message: Pieces,
        timeout_s: float | None,
        metadata: CallMetadata,
        after_s: float,
    ) -> ClientCall:
        """The call that was answered first, or failed last. ValueError: it is closed."""
        end_s = None if timeout_s is None else time.monotonic() + timeout_s
        first = next(self._turns)
        count = len(self._channels)
        waiting = [self._channels[(first + number) % count] for number in reversed(range(count))]
        ended = self._waiting.ended_calls()
        open_calls: set[ClientCall] = set()
        try:
            while True:
                if waiting and len(open_calls) < _AT_A_TIME:
                    method = waiting.pop().unary_unary(path)
                    call = method.future(message, left_s(end_s), metadata)
                    open_calls.add(call)
                    call.add_done_callback(ended.put)
                more = waiting and len(open_calls) < _AT_A_TIME
                answered = await ended.get(after_s if more else None)
                if answered is None:
                    continue
                open_calls.remove(answered)
                if not (undecided(answered.status()) and (waiting or open_calls)):
                    return answered
        finally:
            for call in open_calls:
                call.cancel()

    def close(self) -> None:
        """Close the channels; calls under way are cancelled."""
        for channel in self._channels:
            channel.close()
