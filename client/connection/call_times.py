"""When the bytes of a call passed the socket."""

from dataclasses import dataclass


@dataclass(slots=True)
class CallTimes:
    """Instants of a call, of its last attempt (time.monotonic_ns); 0: unknown.

    `sent_ns` is when the write began that gave the last byte of the request to the kernel; for the
    messages of a stream, when it had ended. It may be set after the answer came. `answer_began_ns`
    is when the first byte of the answer was seen. `server` is the address that the call went to, as
    it was connected to; empty if that is unknown. `lost` are those of earlier attempts, which were
    unavailable or cut the call.
    """

    sent_ns: int = 0
    answer_began_ns: int = 0
    server: str = ""
    lost: tuple[str, ...] = ()

    def sent(self, began_ns: int) -> None:
        """The kernel has the request; see OnSent."""
        self.sent_ns = began_ns
