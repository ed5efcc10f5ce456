"""The limits of a service: the engine in process, and behind raw sockets."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.connection.call_times import CallTimes
from client.errors import RequestFailed
from measure.core.local_server import listening
from measure.limits import sockets
from measure.peers.systems import InProcess, System
from measure.sweep.modes import Local, Mode, Prediction

_GROUP_ROWS = 32
# Rows per in-process execution, the same that the server runs of a large request.
_SLICE_ROWS = 128


class RawSocket:
    """A client of the raw socket server, on one connection; implements a sweep's mode."""

    def __init__(self, address: str) -> None:
        self.name = "raw"
        self.call = CallTimes()
        self._socket = sockets.connect(address)

    def predict(self, x: NDArray[Any]) -> Prediction:
        """Send all rows of `x`, then read their labels, which fit into the socket's buffer."""
        try:
            self._socket.sendall(len(x).to_bytes(4, "little"))
            self._socket.sendall(x.data.cast("B"))
            labels = np.empty(len(x), np.int64)
            view = labels.data.cast("B")
            at = 0
            first_ns = 0
            while at < len(view):
                got = self._socket.recv_into(view[at:])
                if got == 0:
                    raise RequestFailed("UNAVAILABLE", "the raw server closed the connection")
                first_ns = first_ns or time.perf_counter_ns()
                at += got
        except OSError as error:
            raise RequestFailed("UNAVAILABLE", f"raw socket: {error}") from None
        return Prediction(labels, first_ns, time.perf_counter_ns())

    def close(self) -> None:
        """Close the connection; the server waits for the next."""
        self._socket.close()


@contextlib.contextmanager
def raw_server(graph: Path, threads: int, *, unix: bool) -> Iterator[str]:
    """Run measure/side_by_side/raw_socket/server.py; yield its address."""
    words = ("-m", "measure.side_by_side.raw_socket.server", str(graph.resolve()))
    sizes = (str(_GROUP_ROWS), str(threads))
    with (
        sockets.free_address(unix=unix) as address,
        listening([*words, address, *sizes], "the raw socket server") as server,
    ):
        yield server.address


def limit_systems(
    stack: contextlib.ExitStack, graph: Path, threads: int, x: NDArray[Any]
) -> list[System]:
    """The engine in this process, and raw sockets to one that does nothing else."""
    modes: dict[str, Mode] = {"local": Local(graph, threads, _SLICE_ROWS)}
    for name, unix in (("raw_tcp", False), ("raw_unix", True)):
        modes[name] = RawSocket(stack.enter_context(raw_server(graph, threads, unix=unix)))
        stack.callback(modes[name].close)
    return [InProcess(name, "limit", mode, x) for name, mode in modes.items()]
