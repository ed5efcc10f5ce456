"""When the bytes of a call passed the socket."""

import time
from dataclasses import dataclass


@dataclass(slots=True)
class CallTimes:
    """Instants of a call, of its last attempt (time.monotonic_ns); 0: unknown.

    `sent_ns` is when the kernel had the last byte of the request, as the sending thread saw it: a
    quick answer may come before. `answer_began_ns` is when the first byte of the answer was seen.
    """

    sent_ns: int = 0
    answer_began_ns: int = 0

    def sent(self) -> None:
        """The kernel has the request."""
        self.sent_ns = time.monotonic_ns()
