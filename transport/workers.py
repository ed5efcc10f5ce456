"""Threads for work that blocks: few, made at the start, never in the way of the process's end."""

import logging
import queue
import threading
from collections.abc import Callable

from transport.reporting import report

_log = logging.getLogger(__name__)


class Workers:
    """A fixed number of threads and a bounded queue before them."""

    def __init__(self, threads: int, max_waiting: int, name: str) -> None:
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._free = threads + max_waiting
        # Daemons: a handler that never returns must not keep the process.
        self._threads = [
            threading.Thread(target=self._run, name=f"{name}-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, work: Callable[[], None]) -> bool:
        """Run `work` soon. False when as many as are allowed run and wait already."""
        with self._lock:
            if not self._free:
                return False
            self._free -= 1
        self._queue.put(work)
        return True

    def close(self) -> None:
        """End the threads once the work that waits is done; returns at once."""
        for _ in self._threads:
            self._queue.put(None)

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            try:
                work()
            except Exception:
                report(_log, "a worker's job failed")
            finally:
                del work
                with self._lock:
                    self._free += 1
