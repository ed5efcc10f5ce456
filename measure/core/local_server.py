"""Run a local server process for the duration of a measurement."""

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from client.connection.channel import MAX_MESSAGE_BYTES
from client.errors import UsageError
from measure.core.processes import SOURCE, STOP_TIMEOUT_S, child, last_words
from measure.core.verification import Experiment

_LISTENING = "listening on "
# The module that runs a server; tests substitute one that fails on purpose.
SERVER = ("-m", "server")


class ServerProcess:
    """A listening server process: its address, exit and memory."""

    def __init__(self, process: "subprocess.Popen[bytes]", address: str, log: IO[bytes]) -> None:
        self.address = address
        self.pid = process.pid
        self.process = process
        self._log = log

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    def signal(self, number: int) -> int:
        """Send a signal; return the exit code. TimeoutExpired if the process does not end."""
        self.process.send_signal(number)
        return self.process.wait(STOP_TIMEOUT_S)

    def said(self) -> str:
        """Its output on stderr so far."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def forget_peak_memory(self) -> None:
        """Reset the peak to the memory that is resident now."""
        with contextlib.suppress(OSError):
            Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def peak_memory_bytes(self) -> int | None:
        """Peak resident memory since the start, or since `forget_peak_memory`."""
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        return None


@contextlib.contextmanager
def listening(words: Sequence[str], name: str = "the server") -> Iterator[ServerProcess]:
    """Run `python WORDS`, which prints `listening on ADDRESS`, and drain it at the end.

    UsageError with the process's own message if it does not start.
    """
    with (
        tempfile.TemporaryFile() as log,
        child([sys.executable, *words], stdout=subprocess.PIPE, stderr=log) as process,
    ):
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        if not line.startswith(_LISTENING):
            process.wait(STOP_TIMEOUT_S)
            raise UsageError(f"{name} did not start: {last_words(log)}")
        yield ServerProcess(process, line.removeprefix(_LISTENING).strip(), log)


@contextlib.contextmanager
def running_server(
    models: Path,
    options: Sequence[str] = (),
    address: str = "127.0.0.1:0",
    program: Sequence[str] = SERVER,
) -> Iterator[ServerProcess]:
    """Start `python -m server`, by default on a free port, and drain it at the end.

    UsageError with the server's own message if it does not start.
    """
    words = [*program, "--models", str(models.resolve()), "--address", address]
    with listening([*words, "--log-level", "warning", *options]) as server:
        yield server


def export(experiment: Experiment, model: str, models: Path) -> Path:
    """Export the model of an experiment below `models`; return its path.

    UsageError with the exporter's own message if it fails.
    """
    command = [sys.executable, "-m", "model", "export", "--out", str(models.resolve())]
    command += ["--name", model, "--dtype", experiment.dtype, "--seed", str(experiment.seed)]
    command += ["--classes", str(experiment.classes), "--features", str(experiment.features)]
    if experiment.wire is not None:
        command += ["--wire", experiment.wire]
    if experiment.wire_scale is not None:
        command += ["--wire-scale", repr(experiment.wire_scale)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=SOURCE, check=False)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["it printed nothing"]
        raise UsageError(f"cannot export the model:  {said[-1]}")
    return models.resolve() / model / "1" / "model.onnx"


def options(
    experiment: Experiment, batch_sizes: Sequence[int], threads: int, ep: str, *, whole: bool
) -> Iterator[str]:
    """Server options with room for the largest batch; `whole`: in one message, if it can be."""
    fitting = [b * experiment.row_bytes + 2**20 for b in batch_sizes]
    message_bytes = max((b for b in fitting if b <= MAX_MESSAGE_BYTES), default=MAX_MESSAGE_BYTES)
    if whole:
        yield from ("--max-message-bytes", str(max(message_bytes, 128 * 2**20)))
        yield from ("--max-inflight-bytes", str(max(2 * message_bytes, 256 * 2**20)))
    yield from ("--max-batch-rows", str(max(*batch_sizes, 1024)))
    yield from ("--threads", str(threads))
    # The model was just exported here, and start-up time should measure loading alone.
    yield from ("--validation", "off")
    yield from ("--ep", ep)
