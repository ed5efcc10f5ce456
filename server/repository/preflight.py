"""Load a model in a separate process first, so that a crash becomes an error."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from protos.model_config_pb2 import ModelConfig
from server.batching.argmax_labels import ArgmaxLabel
from server.errors import LoadError, ServerStopping, StartError
from server.loaded_model.model import ModelLimits

_SOURCE = Path(__file__).resolve().parents[2]
_PROGRAM = "server.repository.preflight_worker"


@dataclass(frozen=True, slots=True)
class Tried:
    """Findings from loading a model.

    Rows gathered for one execution, why, labels that are an ArgMax of linear scores, and why
    requests share no execution ("": they do).
    """

    group_rows: int
    group_reason: str
    argmax_labels: tuple[ArgmaxLabel, ...]
    unbatched: str


class Preflight:
    """Tries models; safe to use from several threads."""

    def __init__(self, most_s: float, most_bytes: int) -> None:
        """How long a process may take, and how much memory of its own it may have."""
        self._most_s = most_s
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def check(
        self, name: str, version: str, path: Path, config: ModelConfig, limits: ModelLimits
    ) -> Tried:
        """Load the model in the process, and return the findings.

        Raises the StartError of loading, one that says how the process ended, or ServerStopping.
        """
        job = {
            "name": name,
            "version": version,
            "path": str(path.absolute()),
            "limits": asdict(limits),
            "most_s": self._most_s,
            "most_bytes": self._most_bytes,
            "parent": os.getpid(),
        }
        with self._process(path) as process:
            try:
                said, _ = process.communicate(
                    json.dumps(job).encode() + b"\n" + config.SerializeToString(), self._most_s
                )
            except subprocess.TimeoutExpired:
                raise StartError(
                    f"{path}: loading it in a separate process took over {self._most_s:g} s, the "
                    "limit of --validation-s"
                ) from None
        if self._stopped:
            raise ServerStopping("the server is stopping")
        if process.returncode:
            raise StartError(
                f"{path}: the separate process that loads it first ended with "
                f"{_ending(process.returncode)}; its limit is {self._most_bytes} bytes of memory "
                "(--validation-bytes)"
            )
        # ONNX Runtime may have written its own lines before.
        outcome = json.loads(said.splitlines()[-1])
        if "text" in outcome:
            kind = LoadError if outcome["of_configuration"] else StartError
            raise kind(outcome["text"].replace(job["path"], str(path)))
        return Tried(
            int(outcome["group_rows"]),
            str(outcome["group_reason"]),
            tuple(ArgmaxLabel(**label) for label in outcome["argmax_labels"]),
            str(outcome["unbatched"]),
        )

    def stop(self) -> None:
        """Kill the running processes, and start no more."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.kill()

    @contextmanager
    def _process(self, path: Path) -> Iterator[subprocess.Popen[bytes]]:
        """A process that waits for its job; it has ended after the block."""
        with self._lock:
            if self._stopped:
                raise ServerStopping("the server is stopping")
            try:
                process = subprocess.Popen(
                    [sys.executable, "-m", _PROGRAM],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    cwd=_SOURCE,
                )
            except OSError as error:
                raise StartError(
                    f"{path}: the process for loading it could not be started: {error.strerror}"
                ) from None
            self._running.add(process)
        try:
            with process:
                try:
                    yield process
                finally:
                    process.kill()
        finally:
            with self._lock:
                self._running.discard(process)


def _ending(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"status {code}"
