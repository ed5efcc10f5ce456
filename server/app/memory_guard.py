"""Return free memory to the kernel at once where it would take the process beyond its bounds.

Freed memory is kept for the next message, which is faster. Messages of many sizes leave gaps in it,
though, which the next one does not fit: what is kept could become several times what is used.
"""

import resource
import threading
from pathlib import Path

from protos import malloc

# Beside what the options allow: what calls, connections and batches take.
_BESIDE_BYTES = 24 * 2**20
# Where returning memory does not help, it is in use: until it has grown by so much again.
_STEP_BYTES = 16 * 2**20
_NEAR_S, _FAR_S = 0.01, 0.1
_STATM = Path("/proc/self/statm")


class MemoryGuard:
    """A thread that looks at the memory of this process; start it once the models are loaded."""

    def __init__(self, allowed_bytes: int) -> None:
        """`allowed_bytes`: most bytes of messages and answers, beside what is resident now."""
        self._allowed = allowed_bytes
        self._most = _resident_bytes() + allowed_bytes + _BESIDE_BYTES
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory-guard", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        self._thread.join()

    def _watch(self) -> None:
        most, near = self._most, self._most - self._allowed // 2
        resident = 0
        while not self._closed.wait(_NEAR_S if resident > near else _FAR_S):
            resident = _resident_bytes()
            if resident > most:
                malloc.give_back()
                resident = _resident_bytes()
                most = max(self._most, resident + _STEP_BYTES)
            elif most > self._most:
                most = max(self._most, min(most, resident + _STEP_BYTES))


def _resident_bytes() -> int:
    return int(_STATM.read_text().split()[1]) * resource.getpagesize()
