"""Time the client's part of one request."""

import time
from dataclasses import dataclass, field

from client.connection.call_times import CallTimes


@dataclass(slots=True)
class RequestTimes:
    """One request at the client; it begins where this is made.

    `decode_ns` is the time that decoding the answer took so far.
    """

    call: CallTimes = field(default_factory=CallTimes)
    began_ns: int = field(default_factory=time.monotonic_ns)
    received_ns: int = 0
    decode_ns: int = 0

    def received(self) -> None:
        """The answer is complete."""
        self.received_ns = time.monotonic_ns()

    @property
    def send_ns(self) -> int | None:
        """Nanoseconds until the kernel had the last byte of the request; None if unknown."""
        return self.call.sent_ns - self.began_ns if self.call.sent_ns else None

    @property
    def receive_ns(self) -> int | None:
        """Nanoseconds from the first byte of the answer until it was complete; None if unknown."""
        if not (self.received_ns and self.call.answer_began_ns):
            return None
        return self.received_ns - self.call.answer_began_ns
