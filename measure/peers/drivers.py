"""Drive servers with tritonclient, which runs in an environment and a process of its own."""

import contextlib
import json
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from client.errors import RequestFailed
from measure.core.processes import SOURCE, child
from measure.peers.environments import FOLDER, NotAvailable, installed
from measure.peers.peer_servers import MODEL
from measure.peers.systems import Turn

Array = np.ndarray[Any, np.dtype[Any]]

_REQUIREMENTS = ("tritonclient[grpc]==2.73.0", "numpy")
_SCRIPT = SOURCE / "measure" / "peers" / "inside" / "tritonclient_driver.py"
_READY_TIMEOUT_S = 60.0
_CALL_TIMEOUT_S = 120.0
_STOP_TIMEOUT_S = 20.0


class Driver:
    """The process; every command gets one answer, or the process is given up."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process

    def ask(self, command: dict[str, Any] | None, timeout_s: float) -> dict[str, Any]:
        """Send a command (None: only listen); RequestFailed with what the driver says of it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        timer = threading.Timer(timeout_s, self._process.kill)
        timer.start()
        try:
            if command is not None:
                self._process.stdin.write(json.dumps(command).encode() + b"\n")
                self._process.stdin.flush()
            line = self._process.stdout.readline()
        except OSError:
            line = b""
        finally:
            timer.cancel()
        if not line:
            raise RequestFailed("UNAVAILABLE", "tritonclient's process is gone")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise RequestFailed("UNKNOWN", answer["error"])
        return answer

    def stop(self) -> None:
        """Let it end by itself, so that it removes its shared memory."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_TIMEOUT_S)


@contextlib.contextmanager
def running_driver(examples: Array) -> Iterator[Driver]:
    """Start tritonclient's process, which gets a copy of `examples`; NotAvailable if it cannot."""
    venv = installed("tritonclient", _REQUIREMENTS)
    with (FOLDER / "run").joinpath("tritonclient.log").open("wb") as log:
        with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
            path = Path(folder) / "examples.npy"
            np.save(path, examples)
            command = (str(venv.python), str(_SCRIPT), str(path))
            pipe = subprocess.PIPE
            with contextlib.ExitStack() as stack:
                process = stack.enter_context(child(command, stdin=pipe, stdout=pipe, stderr=log))
                driver = Driver(process)
                stack.callback(driver.stop)
                try:
                    driver.ask(None, _READY_TIMEOUT_S)
                except RequestFailed as error:
                    raise NotAvailable(str(error)) from None
                ending = stack.pop_all()
        with ending:
            yield driver


class Driven:
    """A server behind the driver, its examples sent as raw contents or lying in shared memory."""

    kind = "peer"

    def __init__(self, driver: Driver, name: str, address: str, *, shared: bool) -> None:
        """NotAvailable when the server does not become ready."""
        self.name = name
        self._driver = driver
        command = {
            "op": "open",
            "id": name,
            "address": address,
            "model": MODEL,
            "shared_memory": shared,
            "timeout_s": _READY_TIMEOUT_S,
        }
        try:
            driver.ask(command, 2 * _READY_TIMEOUT_S)
        except RequestFailed as error:
            raise NotAvailable(error.text) from None

    def turn(self, rows: int, starts: Sequence[int]) -> Turn:
        """Predict one batch after the other; its first prediction is there with its last."""
        command = {"op": "turn", "id": self.name, "rows": rows, "starts": list(starts)}
        answer = self._driver.ask(command, len(starts) * _CALL_TIMEOUT_S)
        latencies = tuple(answer["latencies_ns"])
        return Turn(latencies, latencies, np.array(answer["labels"], np.int64))

    def close(self) -> None:
        """Close the driver's client."""
        with contextlib.suppress(RequestFailed):
            self._driver.ask({"op": "close", "id": self.name}, _READY_TIMEOUT_S)
