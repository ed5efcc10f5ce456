"""Send a slow request to a second server, too."""

import itertools
import queue
import time
from collections.abc import Callable, Sequence
from typing import Any

import grpc

from client.connection.channel import open_channel
from client.connection.credentials import Credentials
from client.errors import UsageError

_AT_A_TIME = 2


class Hedging(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc]  # grpc has no types
    """Sends single requests, as bytes, to servers in turn, over a channel to each.

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

    def intercept_unary_unary(
        self, _: Callable[..., Any], details: grpc.ClientCallDetails, message: bytes
    ) -> Any:
        """Intercept gRPC's call; return the one answered first, or failed last."""
        end_s = None if details.timeout is None else time.monotonic() + details.timeout
        first = next(self._turns)
        count = len(self._channels)
        waiting = [self._channels[(first + number) % count] for number in reversed(range(count))]
        ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
        open_calls: set[Any] = set()
        try:
            while True:
                if waiting and len(open_calls) < _AT_A_TIME:
                    call = (
                        waiting.pop()
                        .unary_unary(details.method)
                        .future(
                            message,
                            timeout=None if end_s is None else end_s - time.monotonic(),
                            metadata=details.metadata,
                        )
                    )
                    open_calls.add(call)
                    call.add_done_callback(ended.put)
                more = waiting and len(open_calls) < _AT_A_TIME
                try:
                    call = ended.get(timeout=self._after_s if more else None)
                except queue.Empty:
                    continue
                open_calls.remove(call)
                unavailable = call.code() is grpc.StatusCode.UNAVAILABLE
                if not unavailable or not (waiting or open_calls):
                    return call
        finally:
            for call in open_calls:
                call.cancel()

    def close(self) -> None:
        """Close the channels; calls under way are cancelled."""
        for channel in self._channels:
            channel.close()
