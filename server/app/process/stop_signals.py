"""SIGTERM and SIGINT, and other signals, from the first instruction of the program on.

As process 1 of a container, a process does not get signals for which it has no handler. So these
are installed before what takes long to import, and this module imports little.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# They end a process that has no handlers for them.
_OTHERS = (signal.SIGUSR1,)


class StopSignals:
    """The first signal ends the process before it serves, and `wait` once it does.

    A thread waits for the signal: the main thread may be in ONNX Runtime, where Python calls no
    handlers, for as long as a model takes to load.
    """

    def __init__(self, program: str) -> None:
        """Install the handlers, for good; the main thread calls. `program` begins error lines."""
        self._program = program
        self._lock = threading.Lock()
        self._serving = False
        self._arrived = threading.Event()
        self._others: dict[int, Callable[[], object]] = {}
        self._signals, written = os.pipe()
        # Python writes the number of each signal there, in whichever thread gets it. A handler that
        # takes a lock could wait forever for one that the code it interrupts holds.
        os.set_blocking(written, False)
        signal.set_wakeup_fd(written, warn_on_full_buffer=False)
        for number in (*_SIGNALS, *_OTHERS):
            signal.signal(number, lambda *_: None)

    def start(self) -> None:
        """Look at the signals, from the first one on; they are kept until then."""
        threading.Thread(target=self._watch, name="stop-signals", daemon=True).start()

    def serving(self) -> None:
        """From now on a signal does not end the process by itself."""
        with self._lock:
            self._serving = True

    def wait(self) -> None:
        """Wait for a signal; it may have arrived before."""
        self._arrived.wait()

    def on(self, number: signal.Signals, handle: Callable[[], object]) -> None:
        """Call `handle` for each such signal, in a thread. SIGUSR1 does nothing until then."""
        self._others[number] = handle

    def _watch(self) -> None:
        while True:
            number = os.read(self._signals, 1)[0]
            if number in _SIGNALS:
                self._stop(number)
            elif number in self._others:
                # If it fails, SIGTERM is still waited for.
                threading.Thread(target=self._others[number], name="signal", daemon=True).start()

    def _stop(self, number: int) -> None:
        with self._lock:
            if not self._serving:
                name = signal.Signals(number).name
                print(f"{self._program}: stopped by {name} before it served", file=sys.stderr)
                sys.stderr.flush()
                # Nothing was accepted that could be lost, and the main thread may not return soon.
                os._exit(0)
        self._arrived.set()
