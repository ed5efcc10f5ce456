"""Close a version when its queue has run empty, in a thread that is there since it was loaded."""

import threading
from collections.abc import Callable


class Retirement:
    """Waits to close one version: at that time there may be no thread left to start."""

    def __init__(self) -> None:
        """RuntimeError where no thread can be started."""
        self._close: Callable[[], object] | None = None
        self._wanted = threading.Event()
        self._thread = threading.Thread(target=self._run, name="retire", daemon=True)
        self._thread.start()

    def begin(self, close: Callable[[], object] | None) -> None:
        """Call `close`, without waiting for its end; None: there is nothing to close."""
        self._close = close
        self._wanted.set()

    def wait(self) -> None:
        """Wait until that is done."""
        self._thread.join()

    def _run(self) -> None:
        self._wanted.wait()
        if self._close is not None:
            self._close()
