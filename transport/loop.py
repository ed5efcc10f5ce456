"""The I/O thread: waits for sockets and timers and calls what waits for them.

Nothing that runs in it may block. Other threads write to sockets by themselves, so they reach the
loop only for what has to wait: a socket that is full, a call that ends with its deadline.
"""

import heapq
import itertools
import logging
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable

from transport.reporting import report

_log = logging.getLogger(__name__)

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
OnEvent = Callable[[int], None]
_JOIN_S = 5.0
# The selectors take no more than some weeks, deadlines may be later.
_LONGEST_WAIT_S = 3600.0
# A turn that fails may do so again at once.
_AFTER_FAILURE_S = 0.1
# Of so many timers those that were cancelled are dropped: long deadlines of short calls.
_LEAST_TIDIED = 1_000


class Timer:
    """A call to come; `cancel` may be called from any thread."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        """Drop the call."""
        self.call = None


class Loop:
    """One thread that serves many sockets."""

    def __init__(self, name: str) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        self._selector.register(self._wake_read, READ, self._drain_wake)
        self._calls: deque[Callable[[], None]] = deque()
        self._timers: list[tuple[float, int, Timer]] = []
        self._timers_lock = threading.Lock()
        self._tidy_at = _LEAST_TIDIED
        self._order = itertools.count()
        self._asleep = False
        self._running = True
        # A daemon: a program that forgets to close must still end.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()
        self.ident = self._thread.ident

    def call_soon(self, call: Callable[[], None]) -> None:
        """Call from the loop; any thread."""
        self._calls.append(call)
        # The loop says that it sleeps before it looks for calls a last time.
        if self._asleep:
            self._wake()

    def call_at(self, when_s: float, call: Callable[[], None]) -> Timer:
        """Call at `when_s` (time.monotonic); any thread."""
        timer = Timer(call)
        with self._timers_lock:
            heapq.heappush(self._timers, (when_s, next(self._order), timer))
        if self._asleep and self._timers[0][2] is timer:
            self._wake()
        return timer

    def call_later(self, delay_s: float, call: Callable[[], None]) -> Timer:
        """Call after `delay_s`; any thread."""
        return self.call_at(time.monotonic() + delay_s, call)

    def watch(self, sock: socket.socket, events: int, on_event: OnEvent) -> None:
        """Call `on_event` with READ or WRITE when the socket is ready."""
        self._selector.register(sock, events, on_event)
        if self._asleep:
            self._wake()

    def change(self, sock: socket.socket, events: int, on_event: OnEvent) -> None:
        """Wait for other events of a watched socket; any thread, one at a time for a socket."""
        self._selector.modify(sock, events, on_event)

    def forget(self, sock: socket.socket) -> None:
        """Watch a socket no more."""
        self._selector.unregister(sock)

    def stop(self) -> None:
        """Run the calls that wait, and end the thread; wait for its end unless it is the caller."""
        self._running = False
        self._wake()
        if threading.get_ident() != self.ident:
            self._thread.join(_JOIN_S)

    def _wake(self) -> None:
        try:
            self._wake_write.send(b"\0")
        except (BlockingIOError, OSError):
            return  # enough bytes are waiting, or the loop has ended

    def _drain_wake(self, events: int) -> None:
        try:
            self._wake_read.recv(4096)
        except BlockingIOError:
            return

    def _run(self) -> None:
        while self._running:
            try:
                self._turn()
            except Exception:
                # Without memory, perhaps; all sockets depend on this thread.
                report(_log, "I/O thread: a turn failed")
                time.sleep(_AFTER_FAILURE_S)
        # What was asked for before `stop`, such as to close a socket, is still done.
        self._run_calls()
        self._selector.close()
        self._wake_read.close()
        self._wake_write.close()

    def _turn(self) -> None:
        calls, timers = self._calls, self._timers
        self._asleep = True
        timeout: float | None
        if calls:
            timeout = 0.0
        elif timers:
            timeout = min(max(0.0, timers[0][0] - time.monotonic()), _LONGEST_WAIT_S)
        else:
            timeout = None
        ready = self._selector.select(timeout)
        self._asleep = False
        for key, events in ready:
            try:
                key.data(events)
            except Exception:
                report(_log, "I/O thread: a socket's handler failed")
        if timers:
            self._run_timers()
        self._run_calls()

    def _run_calls(self) -> None:
        calls = self._calls
        for _ in range(len(calls)):
            try:
                calls.popleft()()
            except Exception:
                report(_log, "I/O thread: a call failed")

    def _run_timers(self) -> None:
        now_s = time.monotonic()
        timers = self._timers
        if len(timers) >= self._tidy_at:
            self._tidy_timers()
        while timers and timers[0][0] <= now_s:
            with self._timers_lock:
                call = heapq.heappop(timers)[2].call
            if call is not None:
                try:
                    call()
                except Exception:
                    report(_log, "I/O thread: a timer's call failed")

    def _tidy_timers(self) -> None:
        with self._timers_lock:
            self._timers[:] = [each for each in self._timers if each[2].call is not None]
            heapq.heapify(self._timers)
            self._tidy_at = max(_LEAST_TIDIED, 2 * len(self._timers))
