"""Measure how fast raw bytes move between processes."""

import time

from client.errors import UsageError
from command_line.parser import positionals
from measure.core.local_server import listening
from measure.limits import sockets
from measure.limits.memory import GIB

ROUND_BYTES = 256 * 2**20
# The size of a message of the experiment: 32 examples of 1 MiB.
_BUFFER_BYTES = 32 * 2**20


def gib_per_s(rounds: int, *, unix: bool) -> list[float]:
    """Send 256 MiB over loopback TCP or a Unix socket; GiB/s per round.

    The receiver is a separate process that reuses one buffer. UsageError if it does not start.
    """
    data = memoryview(bytearray(_BUFFER_BYTES))
    acknowledged = bytearray(1)
    rates = []
    with (
        sockets.free_address(unix=unix) as address,
        listening(["-m", "measure.limits.wire", address], "the socket reader") as reader,
        sockets.connect(reader.address) as connection,
    ):
        for _ in range(rounds + 1):
            started_ns = time.perf_counter_ns()
            for _ in range(ROUND_BYTES // _BUFFER_BYTES):
                connection.sendall(data)
            if not sockets.receive(connection, memoryview(acknowledged)):
                raise UsageError("the socket reader has ended")
            rates.append(ROUND_BYTES / GIB * 1e9 / (time.perf_counter_ns() - started_ns))
    # The first round touched the buffers for the first time, so it is dropped.
    return rates[1:]


def main() -> None:
    """Serve one connection: answer each complete round with a byte."""
    (address,) = positionals("measure.limits.wire", __doc__, "address")
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    with sockets.listen(address) as listener:
        print(f"listening on {sockets.address_of(listener)}", flush=True)
        connection, _ = listener.accept()
        with connection:
            while all(
                sockets.receive(connection, buffer) for _ in range(ROUND_BYTES // _BUFFER_BYTES)
            ):
                connection.sendall(b"\0")


if __name__ == "__main__":
    main()
