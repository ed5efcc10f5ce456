"""The least a server can do: receive rows into one reused buffer, run ONNX Runtime, send labels.

What this reaches over a socket is the limit for any service on the same machine. It checks nothing
and serves one client.

    python -m bench.raw_server GRAPH ADDRESS GROUP_ROWS THREADS
"""

import socket
from pathlib import Path

import numpy as np

from client.limits.sockets import address_of, listen, receive
from command_line.parser import positionals
from server.engine import Engine


def serve(listener: socket.socket, engine: Engine, group_rows: int) -> None:
    """Answer clients one after another: `rows` as 4 bytes, then the rows, come back as labels."""
    (spec,) = engine.inputs
    ring = np.empty((group_rows, *[size or 1 for size in spec.shape[1:]]), spec.dtype)
    view = ring.reshape(-1).view(np.uint8).data
    header = memoryview(bytearray(4))
    while True:
        connection, _ = listener.accept()
        with connection:
            if connection.family == socket.AF_INET:
                # Else each group's labels wait until those before are acknowledged: up to 40 ms.
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while receive(connection, header):
                left = int.from_bytes(header, "little")
                while left:
                    rows = min(left, group_rows)
                    if not receive(connection, view[: rows * spec.row_bytes]):
                        break
                    (labels,) = engine.run(["label"], {spec.name: ring[:rows]})
                    connection.sendall(labels.tobytes())
                    left -= rows


def main() -> None:
    graph, address, group_rows, threads = positionals(
        "bench.raw_server", __doc__, "graph", "address", "group_rows", "threads"
    )
    engine = Engine(Path(graph), int(threads))
    with listen(address) as listener:
        print(f"listening on {address_of(listener)}", flush=True)
        serve(listener, engine, int(group_rows))


if __name__ == "__main__":
    main()
