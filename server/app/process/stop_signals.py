"""SIGTERM and SIGINT, and other signals, from the first instruction of the program on.

As process 1 of a container, a process does not get signals for which it has no handler. So these
are installed before what takes long to import, and this module imports little.
"""

import os
import queue
import signal
import threading
from collections.abc import Callable

from server.app.process import ending, streams

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# They end a process that has no handlers for them.
_OTHERS = (signal.SIGUSR1,)
# Before it serves, there is nothing to wait for.
_END_S = 5.0


class StopSignals:
    """The first signal ends the process before it serves, and `wait` once it does.

    From then on the process has a limited time, which the kernel keeps.

    A thread waits for the signal: the main thread may be in ONNX Runtime, where Python calls no
    handlers, for as long as a model takes to load.
    """

    def __init__(self, program: str) -> None:
        """Install the handlers, for good; the main thread calls. `program` begins error lines."""
        self._program = program
        self._lock = threading.Lock()
        self._serving = False
        self._end_s = _END_S
        self._arrived = threading.Event()
        self._others: dict[int, Callable[[], object]] = {}
        self._wanted: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._signals, written = os.pipe()
        # Python writes the number of each signal there, in whichever thread gets it. A handler that
        # takes a lock could wait forever for one that the code it interrupts holds.
        os.set_blocking(written, False)
        signal.set_wakeup_fd(written, warn_on_full_buffer=False)
        for number in (*_SIGNALS, *_OTHERS):
            signal.signal(number, lambda *_: None)

    def start(self) -> None:
        """Look at the signals, from the first one on; they are kept until then.

        RuntimeError where no thread can be started.
        """
        ending.install()
        for target, name in ((self._watch, "stop-signals"), (self._call_others, "signal")):
            threading.Thread(target=target, name=name, daemon=True).start()

    def serving(self, end_s: float) -> None:
        """From now on a signal does not end the process by itself, but `end_s` later at most."""
        with self._lock:
            self._serving = True
            self._end_s = end_s

    @property
    def arrived(self) -> bool:
        """Whether a signal has arrived that ends the process."""
        return self._arrived.is_set()

    def wait(self) -> None:
        """Wait for a signal; it may have arrived before."""
        self._arrived.wait()

    def on(self, number: signal.Signals, handle: Callable[[], object]) -> None:
        """Call `handle` for each such signal, in a thread. SIGUSR1 does nothing until then."""
        self._others[number] = handle

    def _watch(self) -> None:
        while True:
            number = os.read(self._signals, 1)[0]
            if number not in _SIGNALS:
                self._wanted.put(number)
            elif not self._arrived.is_set():
                self._stop(number)

    def _stop(self, number: int) -> None:
        # First: nothing that follows can keep the process from its end.
        ending.within(self._end_s)
        with self._lock:
            if not self._serving:
                name = signal.Signals(number).name
                streams.complain(f"{self._program}: stopped by {name} before it served")
                # Nothing was accepted that could be lost, and the main thread may not return soon.
                os._exit(0)
            ending.within(self._end_s)
        self._arrived.set()

    def _call_others(self) -> None:
        while True:
            handle = self._others.get(self._wanted.get())
            if handle is not None:
                try:
                    handle()
                except Exception as error:
                    streams.complain(f"{self._program}: a signal was not handled: {error!r}")
