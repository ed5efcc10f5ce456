"""Measure how fast bytes go from process to process, with nothing done to them."""

import time
from multiprocessing.connection import Connection

from client.errors import UsageError
from measure.limits import sockets
from measure.limits.helper import serving
from measure.limits.memory import GIB

ROUND_BYTES = 256 * 2**20
# What a message of the experiment holds: 32 examples of 1 MiB.
_BUFFER_BYTES = 32 * 2**20


def gib_per_s(rounds: int, *, unix: bool) -> list[float]:
    """Sending 256 MiB over TCP on the loopback interface, or a Unix socket; GiB/s a round.

    The receiver is a process of its own that fills one buffer again and again. UsageError when it
    does not start.
    """
    data = memoryview(bytearray(_BUFFER_BYTES))
    told = bytearray(1)
    rates = []
    with serving(_read_all, unix=unix) as address, sockets.connect(address) as connection:
        for _ in range(rounds + 1):
            started_ns = time.perf_counter_ns()
            for _ in range(ROUND_BYTES // _BUFFER_BYTES):
                connection.sendall(data)
            if not sockets.receive(connection, memoryview(told)):
                raise UsageError("the process that reads the socket is gone")
            rates.append(ROUND_BYTES / GIB * 1e9 / (time.perf_counter_ns() - started_ns))
    # The first round touched the buffers for the first time.
    return rates[1:]


def _read_all(address: str, told: Connection) -> None:
    """Serve one connection: a byte goes back for each round that has come whole."""
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    with sockets.listen(address) as listener:
        told.send(sockets.address_of(listener))
        connection, _ = listener.accept()
        with connection:
            while all(
                sockets.receive(connection, buffer) for _ in range(ROUND_BYTES // _BUFFER_BYTES)
            ):
                connection.sendall(b"\0")
