"""A separate process that reads and loads one model, and the questions that the server asks it."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from server.errors import LoadError, StartError
from server.repository.preflight import messages

# Kinds of questions; `worker` says what is in each, and in its answer.
CONFIGURATION, LABELS, VERSION = "configuration", "labels", "version"

_SOURCE = Path(__file__).resolve().parents[3]
_PROGRAM = "server.repository.preflight.worker"
_ENDING_S = 10.0


@dataclass(frozen=True, slots=True)
class ProcessLimits:
    """How long an answer may take, and how much memory of its own the process may have."""

    most_s: float
    most_bytes: int


class PreflightProcess:
    """A process that waits for questions until `end`."""

    def __init__(self, what: object, limits: ProcessLimits) -> None:
        """Start it; StartError, which begins with `what`, if that is not possible."""
        self._limits = limits
        self._connection, its = socket.socketpair()
        with its:
            try:
                self._popen = subprocess.Popen(
                    [sys.executable, "-m", _PROGRAM, str(its.fileno())],
                    stdin=subprocess.DEVNULL,
                    # ONNX Runtime may write lines of its own.
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=(its.fileno(),),
                    cwd=_SOURCE,
                )
            except OSError as error:
                self._connection.close()
                raise StartError(
                    f"{what}: the separate process for it could not be started: {error.strerror}"
                ) from None
        self._job = {"parent": os.getpid(), **asdict(limits)}

    def ask(
        self, kind: str, what: object, fields: Mapping[str, Any], block: bytes, most_bytes: int
    ) -> tuple[dict[str, Any], list[bytes]]:
        """The answer to a question, with blocks of at most `most_bytes`.

        Raises the StartError or LoadError of the answer, or one, which begins with `what`, that
        says how the process ended, or that its time is over; it cannot be asked again then.
        """
        verb = "load" if kind == VERSION else "read"
        question = {**self._job, **fields, "kind": kind}
        end_s = time.monotonic() + self._limits.most_s
        try:
            self._connection.settimeout(self._limits.most_s)
            messages.send(self._connection, question, block)
            answer, blocks = messages.receive(self._connection, most_bytes, end_s)
        except TimeoutError:
            raise StartError(
                f"{what}: {verb}ing it in a separate process took over {self._limits.most_s:g} s, "
                "the limit of --validation-s"
            ) from None
        except messages.Ended:
            code = self._exit_code()
            raise StartError(
                f"{what}: the separate process that {verb}s it first ended with "
                f"{_ending(code)}; its limit is {self._limits.most_bytes} bytes of memory "
                "(--validation-bytes)"
            ) from None
        if "text" in answer:
            raise (LoadError if answer["of_configuration"] else StartError)(answer["text"])
        return answer, blocks

    def kill(self) -> None:
        """End it now; a question under way fails with an error."""
        self._popen.kill()

    def end(self) -> None:
        """End it, and wait until it has ended."""
        self._connection.close()
        with self._popen:
            self._popen.kill()

    def _exit_code(self) -> int:
        """After its end of the connection was closed, which comes first."""
        try:
            return self._popen.wait(_ENDING_S)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            return self._popen.wait()


def _ending(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"status {code}"
