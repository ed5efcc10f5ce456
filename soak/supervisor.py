"""Keep a server process running at one address, as systemd or Kubernetes do."""

import threading
from collections.abc import Sequence
from pathlib import Path

from client.errors import UsageError
from measure.core.local_server import ServerProcess, running_server
from measure.core.processes import STOP_TIMEOUT_S


class Supervisor:
    """Starts a server, and restarts it whenever it ends, in a thread."""

    def __init__(self, models: Path, options: Sequence[str], address: str) -> None:
        self._models, self._options, self._address = models, options, address
        self._changed = threading.Condition()
        self._ending = False
        self._running: ServerProcess | None = None
        self.starts = 0
        self.failure = ""
        self._thread = threading.Thread(target=self._keep, name="supervisor")

    def __enter__(self) -> "Supervisor":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._ending = True
            running = self._running
        if running is not None:
            running.process.terminate()
        self._thread.join()

    def wait_for_start(self, number: int) -> ServerProcess:
        """Return the `number`th server once it listens; UsageError if none does in time."""
        with self._changed:
            if not self._changed.wait_for(
                lambda: (self.starts >= number and self._running) or self.failure, STOP_TIMEOUT_S
            ):
                raise UsageError(f"no server listened again within {STOP_TIMEOUT_S:g} s")
            if self._running is None:
                raise UsageError(self.failure)
            return self._running

    def _keep(self) -> None:
        while True:
            try:
                with running_server(self._models, self._options, self._address) as running:
                    with self._changed:
                        if self._ending:
                            return
                        self._running = running
                        self.starts += 1
                        self._changed.notify_all()
                    running.process.wait()
            except UsageError as error:
                with self._changed:
                    self.failure = str(error)
                    self._changed.notify_all()
                return
            with self._changed:
                self._running = None
                if self._ending:
                    return
