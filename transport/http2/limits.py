"""Bounds on peers that waste a connection's time: floods of frames that carry nothing."""

import time

from transport.http2.frames import ConnectionFault, ErrorCode

# Resets by the peer (CVE-2023-44487), and those that it provokes (CVE-2025-8671).
MAX_RESETS_PER_S = 500
# PING, SETTINGS, PRIORITY, unknown frames, DATA without data, windows opened by a few bytes.
MAX_IDLE_FRAMES_PER_S = 5_000
# A smaller increment counts as an idle frame.
SMALL_INCREMENT = 1024
# A header block, with its CONTINUATION frames (CVE-2024-27316), before it is decoded.
MAX_BLOCK_BYTES = 64 * 1024
MAX_CONTINUATIONS = 64
# No frame but DATA has a good reason to be longer.
MAX_CONTROL_PAYLOAD = 64 * 1024


class Rate:
    """Counts events; more than `most` within a second are too many."""

    __slots__ = ("_count", "_most", "_name", "_since_s")

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._count = 0
        self._since_s = time.monotonic()

    def count(self) -> None:
        """One more; ConnectionFault when it is too many."""
        self._count += 1
        if self._count <= self._most:
            return
        now_s = time.monotonic()
        if now_s - self._since_s < 1.0:
            raise ConnectionFault(
                ErrorCode.ENHANCE_YOUR_CALM, f"got more than {self._most} {self._name} in a second"
            )
        self._since_s = now_s
        self._count = 1
