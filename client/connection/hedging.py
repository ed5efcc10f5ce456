"""Send a slow request to a second server, too."""

import itertools
import queue
import time
from collections.abc import Sequence

from client.connection.channel import open_channel
from client.connection.credentials import Credentials
from client.errors import UsageError
from protos.codec import Pieces
from transport.calling.callables import CallMetadata
from transport.calling.client_call import ClientCall
from transport.status import Code

_AT_A_TIME = 2


class Hedging:
    """Sends single requests to servers in turn, over a channel to each.

    A request without an answer after `after_s` goes to the next server too, so at most two work on
    it; the first answer counts, the other call is cancelled. If a server is unavailable, the next
    one gets the request at once; any other error counts as an answer. UsageError for one server.
    """

    def __init__(self, addresses: Sequence[str], credentials: Credentials, after_s: float) -> None:
        if len(addresses) < 2:
            raise UsageError(f"got hedging with {addresses[0]} alone, expected two servers")
        if after_s < 0:
            raise UsageError(f"got hedging after {after_s:g} s, expected 0 or more")
        self._channels = [open_channel((address,), credentials) for address in addresses]
        self._after_s = after_s
        self._turns = itertools.count()

    def call(
        self, path: str, message: Pieces, timeout_s: float | None, metadata: CallMetadata
    ) -> ClientCall:
        """The call that was answered first, or failed last. ValueError: it is closed."""
        end_s = None if timeout_s is None else time.monotonic() + timeout_s
        first = next(self._turns)
        count = len(self._channels)
        waiting = [self._channels[(first + number) % count] for number in reversed(range(count))]
        ended: queue.SimpleQueue[ClientCall] = queue.SimpleQueue()
        open_calls: set[ClientCall] = set()
        try:
            while True:
                if waiting and len(open_calls) < _AT_A_TIME:
                    left_s = None if end_s is None else end_s - time.monotonic()
                    method = waiting.pop().unary_unary(path)
                    call = method.future(message, left_s, metadata)
                    open_calls.add(call)
                    call.add_done_callback(ended.put)
                more = waiting and len(open_calls) < _AT_A_TIME
                try:
                    call = ended.get(timeout=self._after_s if more else None)
                except queue.Empty:
                    continue
                open_calls.remove(call)
                if call.code() is not Code.UNAVAILABLE or not (waiting or open_calls):
                    return call
        finally:
            for call in open_calls:
                call.cancel()

    def close(self) -> None:
        """Close the channels; calls under way are cancelled."""
        for channel in self._channels:
            channel.close()
