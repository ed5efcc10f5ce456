"""Queue the rows of a large unary request while the rest of it arrives.

The bytes before the data of a message's last tensor determine the request, if the data end with the
message: what is still to come are rows. Whatever does not go as expected leaves the request to the
ordinary way, which takes the complete message, and repeats what was computed.
"""

import time

from protos.errors import InvalidMessage
from protos.request_decoding import decode_quick, split_arriving
from server.batching.outcome import Outcome
from server.batching.request import Caller
from server.errors import ServingError
from server.loaded_model.parts import Parts
from server.rpc.accounting.pending import Pending
from server.rpc.inference import Inference
from transport.messages import NEVER
from transport.serving.server_call import ServerCall


class EarlyRows:
    """The rows of one message; the I/O thread calls."""

    def __init__(self, pending: Pending, parts: Parts, start: int, row_bytes: int) -> None:
        """`start`: where the rows begin in the message."""
        self._pending = pending
        self._parts = parts
        self._start = start
        self._row_bytes = row_bytes
        self._dropped = False

    @classmethod
    def of(
        cls, message: memoryview, filled: int, inference: Inference, caller: Caller
    ) -> "EarlyRows | None":
        """The rows of a message with `filled` bytes so far; None where it has to be whole."""
        arrived_ns = time.monotonic_ns()
        split = split_arriving(message, filled)
        if split is None:
            return None
        try:
            decoded = decode_quick(message, split)
        except InvalidMessage:
            return None
        if decoded is None:
            return None
        begun = inference.begin_arriving(decoded, arrived_ns, caller)
        if begun is None:
            return None
        pending, parts = begun
        ((start, stop),) = split.spans
        return cls(pending, parts, start, (stop - start) // pending.request.rows)

    @property
    def released(self) -> Outcome[None]:
        """Done as soon as no early rows are needed any more: after `finish` or `drop`."""
        return self._pending.request.released

    def queue(self, filled: int, call: ServerCall) -> int:
        """Queue rows that are there; how many bytes have to be there before more can be queued."""
        parts, pending = self._parts, self._pending
        if not parts.begun:
            # Receiving ends, and decoding begins, as if the message had been looked at only now.
            arrived_ns = time.monotonic_ns() - pending.decode_ns
            pending.request.arrived_ns = arrived_ns
            pending.receive_ns = arrived_ns - call.message_began_ns
        try:
            parts.queue((filled - self._start) // self._row_bytes)
        except ServingError:
            # Another version has replaced this one.
            self.drop()
        if parts.failed:
            self.drop()
        if self._dropped or parts.next_rows is None:
            return NEVER
        return self._start + parts.next_rows * self._row_bytes

    def finish(self) -> Pending | None:
        """Queue the rest of a message that is complete; None where it has to run as a whole."""
        parts = self._parts
        if parts.begun and not self._dropped:
            try:
                parts.finish()
            except ServingError:
                pass
            else:
                return self._pending
        self.drop()
        return None

    def drop(self) -> None:
        """Cancel what is queued, and queue no more."""
        if not self._dropped:
            self._dropped = True
            self._parts.drop()
