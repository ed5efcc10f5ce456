"""An HTTP/2 client that sends single frames, valid or invalid."""

import socket
import struct
from typing import Any, Self

import h2.config
import h2.connection

PATIENCE_S = 20
_SO_LINGER_RESET = struct.pack("ii", 1, 0)


class Http2Peer:
    """A connection to a server, without a gRPC library on this side."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=PATIENCE_S)
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(
                client_side=True,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
                validate_inbound_headers=False,
            )
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def hello(self) -> bool:
        """Send the preface and read the server's settings; return whether any arrived."""
        self.h2.initiate_connection()
        try:
            self.flush()
            data = self._receive()
            self.h2.receive_data(data)
            self.flush()
        except (ConnectionResetError, BrokenPipeError):
            return False
        return bool(data)

    def call(self, path: str, *headers: tuple[str, str], end: bool = False) -> int:
        """Open a call without sending a message; return its stream."""
        number: int = self.h2.get_next_available_stream_id()
        self.h2.send_headers(number, [*request_headers(path), *headers], end_stream=end)
        self.flush()
        return number

    def flush(self) -> None:
        """Send the bytes that h2 has queued."""
        self.socket.sendall(self.h2.data_to_send())

    def send(self, *sent: Any) -> None:
        """Send frames that bypass h2."""
        self.socket.sendall(b"".join(frame.serialize() for frame in sent))

    def read_bytes_to_the_end(self) -> bytes:
        """Wait for the server to close the connection; return everything it sent before."""
        return b"".join(iter(self._receive, b""))

    def read_bytes_up_to(self, wanted: bytes) -> bytes:
        """Read until the given bytes arrive; return everything read."""
        said = b""
        while wanted not in said:
            data = self._receive()
            assert data, said
            said += data
        return said

    def _receive(self) -> bytes:
        try:
            return self.socket.recv(65536)
        except (ConnectionResetError, BrokenPipeError):
            return b""

    def reset(self) -> None:
        """Reset the TCP connection, as the kernel of a crashed client does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _SO_LINGER_RESET)
        self.socket.close()


def request_headers(path: str) -> list[tuple[str, str]]:
    """Headers of a gRPC call."""
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]


def framed(message: bytes) -> bytes:
    """A gRPC message with its prefix, as sent on the wire."""
    return b"\0" + struct.pack(">I", len(message)) + message
