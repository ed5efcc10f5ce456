"""The threads that calls run in, and the limit of open calls of each kind."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from server.errors import TooMany

_QUICK_THREADS = 4
_REFUSING_THREADS = 2
_LOADING_THREADS = 4
_MOST_CONTROL_CALLS = 1_000


class InFlight:
    """The number of open calls, and its limit."""

    def __init__(self, most: int, what: str) -> None:
        """`what`: the name of the calls in the error text, plural."""
        self._most = most
        self._what = what
        self._open = 0
        # Taken by each call: a Condition's own methods are Python, this lock's are not.
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)

    @property
    def open(self) -> int:
        """Open calls."""
        return self._open

    def enter(self) -> bool:
        """Count one more call unless the limit is reached; return whether it was counted."""
        with self._lock:
            if self._open >= self._most:
                return False
            self._open += 1
            return True

    def leave(self) -> None:
        """Count an admitted call as ended."""
        with self._lock:
            self._open -= 1
            if not self._open:
                self._idle.notify_all()

    def refusal(self) -> TooMany:
        """The error for a call over the limit."""
        return TooMany(f"{self._most} {self._what} are open, the most allowed")

    def wait_until_idle(self, timeout_s: float) -> bool:
        """Wait until no call is open; return False on timeout."""
        with self._lock:
            return self._idle.wait_for(lambda: self._open == 0, timeout_s)


def started(threads: int, name: str) -> ThreadPoolExecutor:
    """A pool whose threads all run: later there may be none left to start.

    RuntimeError where they cannot be started.
    """
    pool = ThreadPoolExecutor(threads, name)
    go_on = threading.Event()
    try:
        # While each of them waits, the next job gets a thread of its own.
        for _ in range(threads):
            pool.submit(go_on.wait)
    finally:
        go_on.set()
    return pool


class ThreadPools:
    """Each kind of call has its own threads, so that no kind blocks another."""

    def __init__(self, workers: int, max_waiting: int, max_streams: int, *, blocking: bool) -> None:
        """`blocking`: inference calls wait in threads of their own, as grpcio's do."""
        inference = started if blocking else ThreadPoolExecutor
        self.unary_threads = inference(workers, "unary")
        # A stream keeps its thread as long as it is open.
        self.stream_threads = inference(max_streams, "stream")
        # For RPCs that never wait, for rejections, and for loading and unloading models.
        self.quick_threads = started(_QUICK_THREADS, "quick")
        self.refusing_threads = inference(_REFUSING_THREADS, "refusing")
        self.loading_threads = started(_LOADING_THREADS, "loading")
        self.unary = InFlight(workers + max_waiting, "unary requests")
        self.streams = InFlight(max_streams, "streams")
        # Only the project's own transport counts them: under grpcio each waits for a thread.
        self.control = InFlight(_MOST_CONTROL_CALLS, "control calls")

    def wait_until_idle(self, timeout_s: float) -> bool:
        """Wait until no inference call is open; return False on timeout."""
        end = time.monotonic() + timeout_s
        return self.unary.wait_until_idle(timeout_s) and self.streams.wait_until_idle(
            max(0.0, end - time.monotonic())
        )
