"""Run a local server as a process, for as long as a measurement takes."""

import contextlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from client.connection.channel import MAX_MESSAGE_BYTES
from client.errors import UsageError
from command_line.interruption import shielding_children
from measure.core.verification import Experiment

_SOURCE = Path(__file__).resolve().parents[2]
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


_SOURCE = Path(__file__).resolve().parents[2]


def export(experiment: Experiment, model: str, models: Path) -> Path:
    """Export the model of an experiment below `models`; its file.

    UsageError with the exporter's own words when that fails.
    """
    command = [sys.executable, "-m", "model", "export", "--out", str(models.resolve())]
    command += ["--name", model, "--dtype", experiment.dtype, "--seed", str(experiment.seed)]
    command += ["--classes", str(experiment.classes), "--features", str(experiment.features)]
    if experiment.wire is not None:
        command += ["--wire", experiment.wire]
    if experiment.wire_scale is not None:
        command += ["--wire-scale", repr(experiment.wire_scale)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=_SOURCE, check=False)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise UsageError(f"the model could not be exported: {said[-1]}")
    return models / model / "1" / "model.onnx"


def options(
    experiment: Experiment, batch_sizes: Sequence[int], threads: int, ep: str, *, whole: bool
) -> Iterator[str]:
    """Room for the largest batch; `whole`: as one message, if a message can be that large."""
    fitting = [b * experiment.row_bytes + 2**20 for b in batch_sizes]
    message_bytes = max((b for b in fitting if b <= MAX_MESSAGE_BYTES), default=MAX_MESSAGE_BYTES)
    if whole:
        yield from ("--max-message-bytes", str(max(message_bytes, 128 * 2**20)))
        yield from ("--max-inflight-bytes", str(max(2 * message_bytes, 256 * 2**20)))
    yield from ("--max-batch-rows", str(max(*batch_sizes, 1024)))
    yield from ("--threads", str(threads))
    # The model was just exported here, and start-up is to be what loading takes.
    yield from ("--validation", "off")
    yield from ("--ep", ep)
