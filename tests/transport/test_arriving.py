"""What the handler of a call sees of a large message while it arrives."""

import json

import grpc
import numpy as np
import pytest
from transport_services import PATIENCE_S, UNLIMITED

from transport.messages import ARRIVING_LEAST_BYTES, NEVER
from transport.serving.handler import Unary
from transport.serving.server import Server

MIB = 2**20
STEP_BYTES = 3 * MIB
NUMBERS = np.arange(ARRIVING_LEAST_BYTES // 4 + MIB, dtype=np.uint32)


class Watch(Unary):
    """Answers with what it saw."""

    def __init__(self, call):
        super().__init__(call, self.answer)
        self.seen = []

    def arriving(self, message, filled):
        there = np.frombuffer(message[: filled // 4 * 4], np.uint32)
        right = np.array_equal(there, NUMBERS[: len(there)])
        self.seen.append((filled, len(message), right))
        return NEVER if len(self.seen) == 3 else filled + STEP_BYTES

    def answer(self, call, message):
        call.answer([json.dumps(self.seen).encode()])


@pytest.fixture(scope="module")
def watch():
    server = Server(["127.0.0.1:0"], {"/test/Watch": Watch})
    with grpc.insecure_channel(server.addresses[0], UNLIMITED) as channel:
        method = channel.unary_unary("/test/Watch")
        yield lambda data, **more: json.loads(method(data, timeout=PATIENCE_S, **more))
    server.stop()


def test_a_handler_sees_how_far_a_large_message_is(watch):
    data = NUMBERS.tobytes()
    seen = watch(data)
    # It asked for three looks.
    assert len(seen) == 3
    assert all(length == len(data) and right for _, length, right in seen)
    first, second, third = (filled for filled, _, _ in seen)
    assert first >= MIB
    assert first + STEP_BYTES <= second
    assert second + STEP_BYTES <= third < len(data)


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_a_compressed_message_is_not_shown(watch, compression):
    # Large even when compressed, but not so that grpcio would rather not compress it.
    size = ARRIVING_LEAST_BYTES + 4 * MIB
    data = np.random.default_rng(0).integers(0, 128, size, np.uint8).tobytes()
    assert watch(data, compression=compression) == []


def test_a_small_message_is_not_shown(watch):
    assert watch(NUMBERS.tobytes()[: ARRIVING_LEAST_BYTES - 1]) == []
