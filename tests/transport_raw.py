"""A client that says what it likes: raw HTTP/2 frames on a socket."""

import socket

from hpack import Decoder, Encoder
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    RstStreamFrame,
    SettingsFrame,
)

from transport.http2.frames import PREFACE, ErrorCode

PATIENCE_S = 20


class Raw:
    """Sends frames to `address`, and reads those that come."""

    def __init__(self, address, *, preface=PREFACE, settings=None, sock=None):
        host, _, port = address.rpartition(":")
        self.sock = sock or socket.create_connection((host, int(port)), PATIENCE_S)
        # Else a second small frame waits for the peer to acknowledge the first.
        if self.sock.family != socket.AF_UNIX:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.encoder = Encoder()
        self.decoder = Decoder()
        self._buffer = b""
        self._next = 1
        if preface:
            self.sock.sendall(preface)
            self.send(SettingsFrame(0, settings or {}))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def send(self, *frames):
        """Send frames as they are."""
        self.sock.sendall(b"".join(frame.serialize() for frame in frames))

    def headers(self, path="/test/Echo", more=(), *, end_stream=False):
        """A HEADERS frame that begins a call on a new stream."""
        fields = [
            *((":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "test")),
            *(("content-type", "application/grpc"), ("te", "trailers")),
            *more,
        ]
        frame = HeadersFrame(self._next, self.encoder.encode(fields), flags=["END_HEADERS"])
        if end_stream:
            frame.flags.add("END_STREAM")
        self._next += 2
        return frame

    def message(self, stream_id, data, *, end_stream=True, length=None):
        """A DATA frame with a message, whose prefix may lie about its `length`."""
        prefix = b"\0" + (len(data) if length is None else length).to_bytes(4, "big")
        return DataFrame(stream_id, prefix + data, flags=["END_STREAM"] if end_stream else [])

    def frame(self):
        """The next frame; None at the end of the connection."""
        while len(self._buffer) < 9:
            if not self._more():
                return None
        frame, length = Frame.parse_frame_header(memoryview(self._buffer[:9]))
        while len(self._buffer) < 9 + length:
            if not self._more():
                return None
        frame.parse_body(memoryview(self._buffer[9 : 9 + length]))
        self._buffer = self._buffer[9 + length :]
        return frame

    def _more(self):
        try:
            data = self.sock.recv(65536)
        except ConnectionResetError:
            return False
        self._buffer += data
        return bool(data)

    def until(self, kind):
        """The next frame of a kind; the others are dropped."""
        while (frame := self.frame()) is not None:
            if isinstance(frame, kind):
                return frame
        raise AssertionError(f"the connection ended without {kind.__name__}")

    def goaway(self):
        """The error with which the server ends the connection."""
        return ErrorCode(self.until(GoAwayFrame).error_code)

    def reset(self):
        """The error with which the server ends the next stream."""
        return ErrorCode(self.until(RstStreamFrame).error_code)

    def trailers(self):
        """The next header block that ends a stream."""
        while True:
            frame = self.until(HeadersFrame)
            fields = dict(self.decoder.decode(frame.data))
            if "END_STREAM" in frame.flags:
                return fields


class RawServer:
    """Listens, and gives each connection as a `Raw` that has sent its settings."""

    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(PATIENCE_S)
        self._accepted = []
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"

    def accept(self, settings=None):
        """The next connection."""
        sock, _ = self._listener.accept()
        sock.settimeout(PATIENCE_S)
        preface = b""
        while len(preface) < len(PREFACE):
            preface += sock.recv(len(PREFACE) - len(preface))
        assert preface == PREFACE
        raw = Raw(self.address, preface=b"", sock=sock)
        self._accepted.append(raw)
        raw.send(SettingsFrame(0, settings or {}))
        return raw

    def close(self):
        """Listen no more, and close the connections."""
        self._listener.close()
        for raw in self._accepted:
            raw.sock.close()


def answer(raw, stream_id, data, status="0"):
    """Answer a call with one message and a status."""
    start = raw.encoder.encode([(":status", "200"), ("content-type", "application/grpc")])
    raw.send(
        HeadersFrame(stream_id, start, flags=["END_HEADERS"]),
        raw.message(stream_id, data, end_stream=False),
    )
    trailers = raw.encoder.encode([("grpc-status", status)])
    raw.send(HeadersFrame(stream_id, trailers, flags=["END_HEADERS", "END_STREAM"]))
