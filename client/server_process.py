"""Run a server of one's own, as a process, for as long as a measurement takes."""

import contextlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from client.errors import UsageError
from command_line.interruption import shielding_children

_SOURCE = Path(__file__).resolve().parent.parent
_LISTENING = "listening on "
_STOP_TIMEOUT_S = 60


class ServerProcess:
    """A running server: its address and its memory."""

    def __init__(self, process: "subprocess.Popen[str]", address: str) -> None:
        self.address = address
        self.pid = process.pid

    def forget_peak_memory(self) -> None:
        """Let the peak start anew from what is resident now."""
        with contextlib.suppress(OSError):
            Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def peak_memory_bytes(self) -> int | None:
        """Most memory resident since the start, or since `forget_peak_memory`."""
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        return None


@contextlib.contextmanager
def running_server(models: Path, options: Sequence[str] = ()) -> Iterator[ServerProcess]:
    """Start `python -m server` on a free port, and drain it in the end.

    UsageError with the server's own words when it does not start.
    """
    command = [sys.executable, "-m", "server", "--models", str(models.resolve())]
    command += ["--address", "127.0.0.1:0", "--log-level", "warning", *options]
    with tempfile.TemporaryFile("w+") as log:
        with shielding_children():
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=_SOURCE
            )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line.startswith(_LISTENING):
                process.wait(_STOP_TIMEOUT_S)
                log.seek(0)
                said = log.read().strip().splitlines() or ["it said nothing"]
                raise UsageError(f"the server did not start: {said[-1]}")
            yield ServerProcess(process, line.removeprefix(_LISTENING).strip())
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_STOP_TIMEOUT_S)
            except BaseException as error:
                process.kill()
                process.wait()
                # Ctrl-C once more: it need not be drained.
                if not isinstance(error, subprocess.TimeoutExpired):
                    raise
            if process.stdout is not None:
                process.stdout.close()
