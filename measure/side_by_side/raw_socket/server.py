"""The least a server can do: receive rows into one reused buffer, run ONNX Runtime, send labels.

Its rate over a socket is the limit for any service on the same machine. It checks nothing and
serves one client.

    python -m measure.side_by_side.raw_socket.server GRAPH ADDRESS GROUP_ROWS THREADS
"""

import socket
from pathlib import Path

import numpy as np

from command_line.parser import positionals
from measure.limits.sockets import address_of, listen, receive
from server.onnx.engine import Engine


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
                # With Nagle's algorithm each group's labels would wait for the previous
                # acknowledgement, up to 40 ms.
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
    """Serve one connection with the graph, at the address of the command line."""
    graph, address, group_rows, threads = positionals(
        "measure.side_by_side.raw_socket.server",
        __doc__,
        "graph",
        "address",
        "group_rows",
        "threads",
    )
    engine = Engine(Path(graph), int(threads))
    with listen(address) as listener:
        print(f"listening on {address_of(listener)}", flush=True)
        serve(listener, engine, int(group_rows))


if __name__ == "__main__":
    main()
