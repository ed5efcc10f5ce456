"""The threads that calls run in, and the limit of open calls of each kind."""

import time
from concurrent.futures import ThreadPoolExecutor

from server.rpc.in_flight import InFlight

_QUICK_THREADS = 4
_REFUSING_THREADS = 2
_LOADING_THREADS = 4


class ThreadPools:
    """Each kind of call has its own threads, so that no kind blocks another."""

    def __init__(self, workers: int, max_waiting: int, max_streams: int) -> None:
        self.unary_threads = ThreadPoolExecutor(workers, "unary")
        # A stream keeps its thread as long as it is open.
        self.stream_threads = ThreadPoolExecutor(max_streams, "stream")
        # For RPCs that never wait, for rejections, and for loading and unloading models.
        self.quick_threads = ThreadPoolExecutor(_QUICK_THREADS, "quick")
        self.refusing_threads = ThreadPoolExecutor(_REFUSING_THREADS, "refusing")
        self.loading_threads = ThreadPoolExecutor(_LOADING_THREADS, "loading")
        self.unary = InFlight(workers + max_waiting, "unary requests")
        self.streams = InFlight(max_streams, "streams")

    def wait_until_idle(self, timeout_s: float) -> bool:
        """Wait until no inference call is open; return False on timeout."""
        end = time.monotonic() + timeout_s
        return self.unary.wait_until_idle(timeout_s) and self.streams.wait_until_idle(
            max(0.0, end - time.monotonic())
        )
