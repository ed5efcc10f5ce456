"""Start processes, and always end them, by their ids."""

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from command_line.interruption import holding_signals

SOURCE = Path(__file__).resolve().parents[2]
# A server drains within 30 s by default.
STOP_TIMEOUT_S = 60.0

Pipe = IO[Any] | int | None


@contextlib.contextmanager
def child(
    command: Sequence[str],
    *,
    stdin: Pipe = subprocess.DEVNULL,
    stdout: Pipe = None,
    stderr: Pipe = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run `command` in the project's folder, in a new process group.

    At the end the group gets SIGTERM, then SIGKILL if it does not exit, so that processes it
    started end too. Ctrl-C reaches it only through this function. It stays in our session, because
    Linux divides the cores among sessions first: priorities hold only within one.
    """
    process: subprocess.Popen[bytes] | None = None
    try:
        with holding_signals():
            process = subprocess.Popen(
                list(command),
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                env=None if environment is None else {**os.environ, **environment},
                cwd=SOURCE,
                process_group=0,
            )
        # If memory runs out, the kernel should kill the measured process, not an unrelated one.
        with contextlib.suppress(OSError):
            Path(f"/proc/{process.pid}/oom_score_adj").write_text("1000")
        yield process
    finally:
        if process is not None:
            _end(process)


def last_words(log: IO[bytes]) -> str:
    """The last line that a process wrote to `log`."""
    log.seek(0)
    lines = log.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it printed nothing"


def free_port() -> int:
    """A port of the loopback interface that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end(process: "subprocess.Popen[bytes]") -> None:
    try:
        if process.poll() is None:
            _signal(process, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_TIMEOUT_S)
    finally:
        # A second Ctrl-C ends the wait. The process may also have exited before its own children.
        _signal(process, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def _signal(process: "subprocess.Popen[bytes]", number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
