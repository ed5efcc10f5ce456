"""Run server processes that may end at any time and be started again."""

import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from client.errors import UsageError
from measure.core.processes import child

_LISTENING = "listening on "
STOP_TIMEOUT_S = 60.0
# What runs a server; tests put one there that fails on purpose.
SERVER = ("-m", "server")


@dataclass(frozen=True, slots=True)
class Running:
    """A server process that listens."""

    process: "subprocess.Popen[bytes]"
    address: str
    _log: IO[bytes]

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    def signal(self, number: int) -> int:
        """Send a signal and return the exit code; TimeoutExpired if the server does not end."""
        self.process.send_signal(number)
        return self.process.wait(STOP_TIMEOUT_S)

    def said(self) -> str:
        """Its stderr."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")


@contextmanager
def serving(
    models: Path,
    options: Sequence[str] = (),
    address: str = "127.0.0.1:0",
    program: Sequence[str] = SERVER,
) -> Iterator[Running]:
    """A server that runs during the block; UsageError with its own text if it does not start."""
    command = [sys.executable, *program, "--models", str(models.resolve()), "--address", address]
    with tempfile.TemporaryFile() as log:
        command += ["--log-level", "warning", *options]
        with child(command, stdout=subprocess.PIPE, stderr=log) as process:
            assert process.stdout is not None
            line = process.stdout.readline().decode()
            running = Running(process, line.removeprefix(_LISTENING).strip(), log)
            if not line.startswith(_LISTENING):
                process.wait(STOP_TIMEOUT_S)
                said = running.said().strip().splitlines() or ["it said nothing"]
                raise UsageError(f"the server did not start: {said[-1]}")
            yield running


class Supervisor:
    """Keeps a server at one address: starts another whenever it ends.

    As systemd or Kubernetes do, here in a thread.
    """

    def __init__(self, models: Path, options: Sequence[str], address: str) -> None:
        self._models, self._options, self._address = models, options, address
        self._changed = threading.Condition()
        self._ending = False
        self._running: Running | None = None
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

    def wait_for_start(self, number: int) -> Running:
        """The `number`th server that was started, once it listens; UsageError."""
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
                with serving(self._models, self._options, self._address) as running:
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
