"""Fuzz the transport's readers: `python -m soak.fuzz.transport_fuzz SEED SECONDS COUNT`.

An input is what one client sends after its preface: frames, valid and damaged, cut where a network
may cut them. A server's connection reads it from memory, in the thread that made it, so that
millions of inputs take minutes. Afterwards the connection must have ended, with each of its calls.
"""

import logging
import random
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from soak.fuzz.frames_fuzz import frame, literal, seeds
from soak.fuzz.fuzz_process import Failure, child_main, run_children
from soak.fuzz.mutation import mutated
from soak.tally import Tally
from transport.compression import pack
from transport.http2.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Buffer,
)
from transport.http2.receiving import SCRATCH_BYTES
from transport.loop import READ, Loop, OnEvent, Timer
from transport.messages import SkipMessage
from transport.options import ServerConnectionOptions
from transport.serving.ahead import AheadBytes
from transport.serving.handler import CallHandler, Method
from transport.serving.server_call import ServerCall
from transport.serving.server_connection import ServerConnection

_MODULE = "soak.fuzz.transport_fuzz"
_MOST_FRAMES = 12
# Memory for a message is allocated before its payload arrives; a prefix could ask for 4 GiB.
_OPTIONS = ServerConnectionOptions(max_message_bytes=2**20, receive_s=10.0)
_SETTINGS = frame(SETTINGS, 0, 0)


def run(tally: Tally, folder: Path) -> None:
    """Count inputs after which a connection had ended as it should, in several processes."""
    run_children(tally, _MODULE)


_INDEXED = b"\x83\x86\x44\x05/echo\x5f\x10application/grpc"
_MESSAGE = struct.pack(">BI", 0, 300) + bytes(300)
# One that `Echo` skips, and one that it lets wait.
_OTHERS = struct.pack(">BI", 0, 302) + bytes(302) + struct.pack(">BI", 0, 301) + bytes(301)
_PACKED = pack([b"a" * 300], "gzip")
_PACKED_MESSAGE = struct.pack(">BI", 1, len(_PACKED)) + _PACKED


def conversation() -> list[bytes]:
    """Frames of a valid client, in order: six calls, some of them at the same time."""
    metadata = literal("grpc-timeout", "1S") + literal("x-bin", "AAEC") + literal("te", "trailers")
    encoded = literal("grpc-encoding", "gzip") + literal("grpc-accept-encoding", "gzip")
    # Indexed from here on: a name and a value that the next block refers to.
    remembered = b"\x40\x01a" + b"\x0abbbbbbbbbb"
    block = _INDEXED + remembered + metadata
    return [
        frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 2**20)),
        frame(HEADERS, END_HEADERS, 1, block),
        frame(DATA, 0, 1, _MESSAGE[:100]),
        frame(HEADERS, END_HEADERS, 3, _INDEXED + encoded),
        frame(DATA, END_STREAM, 3, _PACKED_MESSAGE),
        frame(DATA, 0, 1, _MESSAGE[100:] + _OTHERS + _MESSAGE),
        frame(PING, 0, 0, bytes(8)),
        frame(HEADERS, 0, 5, block[:30]),
        frame(CONTINUATION, END_HEADERS, 5, block[30:]),
        frame(WINDOW_UPDATE, 0, 5, struct.pack(">I", 1000)),
        frame(DATA, PADDED, 5, b"\x10" + _MESSAGE + bytes(16)),
        frame(DATA, END_STREAM, 1, b""),
        frame(RST_STREAM, 0, 5, struct.pack(">I", 8)),
        frame(HEADERS, END_HEADERS | PADDED, 7, b"\x04" + _INDEXED + b"\xbe" + bytes(4)),
        frame(DATA, 0, 7, struct.pack(">BI", 0, 0) * 3),
        frame(HEADERS, END_HEADERS | END_STREAM, 7, literal("trailer", "x")),
        frame(HEADERS, END_HEADERS, 9, _INDEXED + literal("content-length", "305")),
        frame(DATA, END_STREAM, 9, _MESSAGE),
        frame(HEADERS, END_HEADERS | END_STREAM, 11, _INDEXED),
        frame(GOAWAY, 0, 0, struct.pack(">II", 0, 0)),
    ]


def corpus() -> list[bytes]:
    """Frames of the conversation, of the attack on a real server, and header bombs."""
    bomb = b"\x3f\xe1\x1f" + literal("a", "b" * 100) + b"\xbe" * 50
    return [
        *conversation(),
        *seeds(),
        frame(
            HEADERS, END_HEADERS | END_STREAM, 5, b"\x83\x86\x04\x84\x60\xfa\x4b\x3f\x41\x81\x1f"
        ),
        frame(HEADERS, 0, 7, bomb) + frame(CONTINUATION, END_HEADERS, 7, bomb),
    ]


def drawn(generator: random.Random, frames: Sequence[bytes]) -> list[bytes]:
    """The conversation with a few frames damaged, added or missing; or frames in any order."""
    if generator.random() < 0.3:
        return [
            generator.choice(frames) if generator.random() < 0.5 else mutated(generator, frames)
            for _ in range(generator.randint(1, _MOST_FRAMES))
        ]
    spoiled = conversation()
    for _ in range(generator.choice((1, 1, 2, 3))):
        at = generator.randrange(len(spoiled))
        way = generator.random()
        if way < 0.6:
            spoiled[at] = mutated(generator, [spoiled[at]])
        elif way < 0.8:
            spoiled.insert(at, mutated(generator, frames))
        elif len(spoiled) > 1:
            del spoiled[at]
    return spoiled


def cut(generator: random.Random, data: bytes) -> list[bytes]:
    """The data in up to five chunks, none of them empty."""
    places = sorted(generator.randrange(len(data)) for _ in range(generator.choice((0, 1, 4))))
    edges = zip([0, *places], [*places, len(data)], strict=True)
    return [data[start:end] for start, end in edges if start < end]


class _Chunks:
    """The connection's pipe: the client's bytes in chunks. It accepts all that is written."""

    short_when_full = True
    pending = False

    def __init__(self, chunks: Sequence[bytes]) -> None:
        self.sock = _CLOSED
        self._chunks = list(reversed(chunks))

    def receive(self, into: memoryview) -> int | None:
        """See Pipe."""
        if not self._chunks:
            return 0
        chunk = self._chunks.pop()
        count = min(len(chunk), len(into))
        into[:count] = chunk[:count]
        if count < len(chunk):
            self._chunks.append(chunk[count:])
        return count

    def receive_two(self, into: memoryview, after: memoryview) -> int | None:
        """See Pipe."""
        return self.receive(into)

    def send(self, buffers: Sequence[Buffer], size: int) -> int:
        """See Pipe."""
        return size

    send_waiting = send


class _InlineLoop(Loop):
    """Runs scheduled calls when `run` is called, in the caller's thread; no timer expires."""

    def __init__(self) -> None:
        self.on_event: OnEvent | None = None
        self._soon: list[Callable[[], None]] = []

    def call_soon(self, call: Callable[[], None]) -> None:
        """See Loop."""
        self._soon.append(call)

    def call_at(self, when_s: float, call: Callable[[], None]) -> Timer:
        """See Loop."""
        return Timer(call)

    def watch(self, sock: socket.socket, events: int, on_event: OnEvent) -> None:
        """See Loop."""
        self.on_event = on_event

    def change(self, sock: socket.socket, events: int, on_event: OnEvent) -> None:
        """See Loop."""

    def forget(self, sock: socket.socket) -> None:
        """See Loop."""

    def run(self) -> None:
        """Run the calls that wait."""
        while self._soon:
            waiting, self._soon = self._soon, []
            for call in waiting:
                call()


class Echo(CallHandler):
    """Answers each message with itself; counts among the open until its call has ended.

    By their length some messages wait a moment, and some are skipped.
    """

    def __init__(self, call: ServerCall, opened: set[CallHandler]) -> None:
        self._call = call
        self._opened = opened
        opened.add(self)

    def admit(self, length: int) -> bool:
        """See CallHandler."""
        if length % 3 == 2:
            raise SkipMessage
        if length % 3 == 1:
            self._call.resume()
            return False
        return True

    def message(self, message: memoryview) -> None:
        """See CallHandler."""
        self._call.send([message])

    def skipped(self, length: int, head: bytes) -> None:
        """See CallHandler."""
        self._call.send([head])

    def half_closed(self) -> None:
        """See CallHandler."""
        self._opened.discard(self)
        self._call.finish()

    def cancelled(self) -> None:
        """See CallHandler."""
        self._opened.discard(self)


class _Host:
    """Serves every path, and unpacks at once."""

    on_call_ended = None

    def __init__(self) -> None:
        self.ahead = AheadBytes(2**40)
        self.opened: set[CallHandler] = set()

    def method(self, path: str) -> Method | None:
        """See Host."""
        return lambda call: Echo(call, self.opened)

    def on_connection_gone(self, connection: ServerConnection) -> None:
        """See Host."""

    def run_blocking(self, work: Callable[[], None]) -> bool:
        """See Host."""
        work()
        return True

    def pressed(self) -> bool:
        """See Host."""
        return False

    def on_dropped(self) -> None:
        """See Host."""


class _Logged(logging.Handler):
    """Keeps errors that the transport logs: exceptions that it did not foresee."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """See Handler."""
        self.texts.append(self.format(record))


def _closed_socket() -> socket.socket:
    sock = socket.socket()
    sock.close()
    return sock


_CLOSED = _closed_socket()
_SCRATCH = memoryview(bytearray(SCRATCH_BYTES))


def serve(chunks: Sequence[bytes]) -> str | None:
    """Let a connection read all chunks and then the end; return the fault afterwards, if any."""
    host, loop = _Host(), _InlineLoop()
    connection = ServerConnection(
        host, loop, _CLOSED, _Chunks(chunks), _OPTIONS, _SCRATCH, "ipv4:127.0.0.1:1"
    )
    connection.start(b"")
    assert loop.on_event is not None
    # Each event reads at least one chunk, or the end.
    for _ in range(len(chunks) + 2 * SCRATCH_BYTES):
        loop.run()
        if connection.lost:
            break
        loop.on_event(READ)
    if not connection.lost:
        return "the connection has not ended"
    if connection.streams or host.opened:
        return f"{len(connection.streams)} streams and {len(host.opened)} calls have not ended"
    return None


def main() -> int:
    """Fuzz until the time or the count is over."""
    frames = corpus()
    logged = _Logged()
    root = logging.getLogger()
    root.handlers[:] = [logged]

    def trial(generator: random.Random, _: int) -> Failure | None:
        chunks = cut(generator, _SETTINGS + b"".join(drawn(generator, frames)))
        try:
            failure = serve(chunks)
        except Exception as error:
            failure = repr(error)
        if logged.texts:
            failure = logged.texts[0]
            logged.texts.clear()
        return None if failure is None else ("|".join(chunk.hex() for chunk in chunks), failure)

    return child_main(_MODULE, __doc__, trial)


if __name__ == "__main__":
    sys.exit(main())
