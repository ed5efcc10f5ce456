"""Drive servers with tritonclient, which runs in a separate environment and process."""

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.errors import RequestFailed, UsageError
from measure.core.child_process import ChildProcess, talking_to
from measure.core.processes import SOURCE
from measure.peers.environments import FOLDER, NotAvailable, installed
from measure.peers.peer_servers import MODEL
from measure.peers.systems import Turn

_REQUIREMENTS = ("tritonclient[grpc]==2.73.0", "numpy")
_SCRIPT = SOURCE / "measure" / "peers" / "inside" / "tritonclient_driver.py"
_READY_TIMEOUT_S = 60.0
_CALL_TIMEOUT_S = 120.0


@contextlib.contextmanager
def running_driver(examples: NDArray[Any]) -> Iterator[ChildProcess]:
    """Start tritonclient's process with a copy of `examples`; NotAvailable if it cannot start."""
    venv = installed("tritonclient", _REQUIREMENTS)
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        path = Path(folder) / "examples.npy"
        np.save(path, examples)
        command = (str(venv.python), str(_SCRIPT), str(path))
        with talking_to(command, "tritonclient's process") as driver:
            try:
                driver.receive(_READY_TIMEOUT_S)
            except UsageError as error:
                raise NotAvailable(str(error)) from None
            yield driver


class Driven:
    """A server behind the driver, its examples sent as raw contents or lying in shared memory."""

    kind = "peer"

    def __init__(self, driver: ChildProcess, name: str, address: str, *, shared: bool) -> None:
        """NotAvailable if the server does not become ready."""
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
        except (RequestFailed, UsageError) as error:
            raise NotAvailable(str(error)) from None

    def turn(self, rows: int, starts: Sequence[int]) -> Turn:
        """Predict batches one after the other; first and last prediction arrive together."""
        command = {"op": "turn", "id": self.name, "rows": rows, "starts": list(starts)}
        try:
            answer = self._driver.ask(command, len(starts) * _CALL_TIMEOUT_S)
        except UsageError as error:
            raise RequestFailed("UNAVAILABLE", str(error)) from None
        latencies = tuple(answer["latencies_ns"])
        return Turn(latencies, latencies, np.array(answer["labels"], np.int64))

    def close(self) -> None:
        """Close the driver's client."""
        with contextlib.suppress(RequestFailed, UsageError):
            self._driver.ask({"op": "close", "id": self.name}, _READY_TIMEOUT_S)
