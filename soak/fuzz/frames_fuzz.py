"""Send raw HTTP/2 frames, valid and damaged, to a real server: it must keep serving others."""

import random
import socket
import struct
from functools import partial
from pathlib import Path

import psutil

from client.client import Client
from measure.core.local_server import running_server
from soak.clients import ONCE, at_once, wrong
from soak.fuzz.mutation import mutated
from soak.known_answers import MODEL, SMALL, Questions, put_model
from soak.request_kinds import OPTIONS
from soak.tally import Tally

CLIENTS = 3
_BETWEEN_CANARIES = 100
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _PRIORITY, _RESET, _SETTINGS, _PUSH, _PING, _GOAWAY, _WINDOW, _MORE = range(10)
_END_STREAM, _END_HEADERS = 0x1, 0x4
_MOST_FRAMES = 12
# We send nothing more: a connection that is still open by then hangs.
_HANG_S = 20.0


def run(tally: Tally, folder: Path) -> None:
    """Count connections that the server closed after us, while others got right answers."""
    put_model(folder, SMALL)
    with running_server(folder, OPTIONS) as server:
        host, _, port = server.address.rpartition(":")
        process = psutil.Process(server.process.pid)
        questions = Questions(SMALL)
        to = (host, int(port))
        at_once([partial(_attack, tally, to, questions, tally.seed + n) for n in range(CLIENTS)])
        if not server.alive:
            tally.fail("the server", f"ended with {server.process.poll()}: {server.said()}")
        else:
            tally.facts["resident_mib"] = process.memory_info().rss // 2**20
            tally.facts["descriptors"] = process.num_fds()


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame (RFC 9113, 4.1)."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def literal(name: str, value: str) -> bytes:
    """A header field, never indexed, its name new (RFC 7541, 6.2.3)."""
    return b"\x10" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def seeds() -> list[bytes]:
    """Frames of a normal client, and invalid ones."""
    path = "/inference.GRPCInferenceService/ServerLive"
    headers = b"".join(
        literal(*pair)
        for pair in (
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "a"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        )
    )
    empty_message = bytes(5)
    return [
        frame(_SETTINGS, 0, 0),
        frame(_SETTINGS, 0, 0, struct.pack(">HI", 4, 2**31 - 1)),
        frame(_SETTINGS, 0, 0, struct.pack(">HI", 1, 2**32 - 1)),
        frame(_SETTINGS, 1, 0),
        frame(_HEADERS, _END_HEADERS, 1, headers) + frame(_DATA, _END_STREAM, 1, empty_message),
        frame(_HEADERS, _END_HEADERS, 3, headers) + frame(_RESET, 0, 3, struct.pack(">I", 8)),
        frame(_HEADERS, _END_STREAM, 5, headers[:20]) + frame(_MORE, _END_HEADERS, 5, headers[20:]),
        frame(_HEADERS, 0, 7, headers),
        frame(_DATA, 0, 1, b"\x00\xff\xff\xff\xff"),
        frame(_DATA, _END_STREAM, 9, b"x" * 100),
        frame(_PING, 0, 0, bytes(8)),
        frame(_WINDOW, 0, 0, struct.pack(">I", 2**31 - 1)),
        frame(_WINDOW, 0, 1, struct.pack(">I", 0)),
        frame(_PRIORITY, 0, 1, bytes(5)),
        frame(_PUSH, _END_HEADERS, 1, struct.pack(">I", 2) + headers),
        frame(_GOAWAY, 0, 0, struct.pack(">II", 0, 0)),
        frame(0x7F, 0xFF, 2**31 - 1, b"unknown"),
    ]


def _attack(tally: Tally, address: tuple[str, int], questions: Questions, seed: int) -> None:
    generator = random.Random(seed)
    corpus = seeds()
    number = 0
    with Client(f"{address[0]}:{address[1]}", MODEL, deadline_s=_HANG_S, retry=ONCE) as client:
        while tally.take():
            frames = [
                generator.choice(corpus) if generator.random() < 0.5 else mutated(generator, corpus)
                for _ in range(generator.randint(1, _MOST_FRAMES))
            ]
            preface = _PREFACE if generator.random() < 0.9 else mutated(generator, [_PREFACE])
            data = preface + b"".join(frames)
            fault = _exchange(address, data)
            if fault is None:
                tally.add()
            else:
                tally.fail(data.hex(), fault)
            number += 1
            if number % _BETWEEN_CANARIES == 0:
                _canary(tally, client, questions, number)


def _exchange(address: tuple[str, int], data: bytes) -> str | None:
    """Send all frames, then wait for the server to close; return the error, if any."""
    try:
        with socket.create_connection(address, timeout=_HANG_S) as connection:
            try:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    pass
            except OSError as error:
                if isinstance(error, TimeoutError):
                    return f"not closed within {_HANG_S:g} s"
                # The server may close at the first invalid frame.
    except OSError as error:
        return f"no connection: {error!r}"
    return None


def _canary(tally: Tally, client: Client, questions: Questions, number: int) -> None:
    x, wanted = questions[number]
    try:
        fault = wrong(client.predict(x), wanted)
    except Exception as error:
        tally.fail("canary", repr(error))
        return
    if fault is not None:
        tally.fail("canary", fault)
    tally.note("canaries")
