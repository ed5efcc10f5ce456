"""Bounds on peers that waste a connection's time: floods of frames that carry nothing."""

import time

from transport.http2.frames import ConnectionFault, ErrorCode

# Resets by the peer (CVE-2023-44487), and those that it provokes (CVE-2025-8671).
MAX_RESETS_PER_S = 500
# SETTINGS, PRIORITY, unknown frames, DATA without data, windows opened by a few bytes.
MAX_IDLE_FRAMES_PER_S = 5_000
# Of those with nothing sent in between: clients measure round trips while they are answered.
MAX_PINGS_PER_S = 1_000
# By this word gRPC's clients know that they have to ping less.
TOO_MANY_PINGS = "too_many_pings"
# A smaller increment counts as an idle frame, unless a message explains it: gRPC's own clients open
# two windows, the stream's and the connection's, by the size of a small answer.
SMALL_INCREMENT = 1024
INCREMENTS_PER_MESSAGE = 2
# A header block, with its CONTINUATION frames (CVE-2024-27316), before it is decoded.
MAX_BLOCK_BYTES = 64 * 1024
MAX_CONTINUATIONS = 64
# No frame but DATA has a good reason to be longer.
MAX_CONTROL_PAYLOAD = 64 * 1024


class Rate:
    """Counts events; more than `most` within a second are too many."""

    __slots__ = ("_count", "_most", "_since_s", "_text")

    def __init__(self, most: int, text: str) -> None:
        """`text` is said to a peer that causes more."""
        self._most = most
        self._text = text
        self._count = 0
        self._since_s = time.monotonic()

    def count(self) -> None:
        """One more; ConnectionFault when it is too many."""
        self._count += 1
        if self._count <= self._most:
            return
        now_s = time.monotonic()
        if now_s - self._since_s < 1.0:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, self._text)
        self._since_s = now_s
        self._count = 1
