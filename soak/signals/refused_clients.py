"""Clients that send to one server until it rejects requests, and record wrong answers."""

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import grpc

from protos.codec import (
    InferRequest,
    InferResponse,
    RequestedOutput,
    decode_response,
    decode_stream_response,
    encode_request,
)
from protos.tensors import Tensor
from soak.clients import Clients, wrong
from soak.known_answers import MODEL, Labels, Questions

UNARY, STREAMS = 3, 3
_SERVICE = "/inference.GRPCInferenceService/"
_IN_FLIGHT = 8
_TIMEOUT_S = 30.0
# The server's message for a request that it did not accept.
_REFUSAL = "the server is stopping"


class RefusedClients(Clients):
    """Clients, each on a separate channel, without retries, so that they see the server's statuses.

    A failed request is wrong unless the server rejected it with its own message, or it was sent
    after the signal and could not connect. They do not use the client library, which would fail
    over.
    """

    def __init__(self, address: str, questions: Questions) -> None:
        self._address = address
        self._questions = questions
        self.refused = 0
        self.wrong: list[tuple[str, str]] = []
        # Time of the signal, on the monotonic clock.
        self.signalled_s = float("inf")
        self._lock = threading.Lock()
        ways = [partial(self._on_channel, way) for way in (self._unary, self._stream)]
        counts = (UNARY, STREAMS)
        super().__init__(
            [way for way, count in zip(ways, counts, strict=True) for _ in range(count)],
            self._wrong,
            _TIMEOUT_S,
        )

    def _wrong(self, what: str, outcome: str) -> None:
        with self._lock:
            self.wrong.append((what, outcome))

    def _on_channel(self, way: Callable[[int, grpc.Channel], None], client: int) -> None:
        options = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(self._address, options=options) as channel:
            way(client, channel)

    def _message(self, number: int) -> tuple[bytes, Labels]:
        x, labels = self._questions[number]
        request = InferRequest(
            MODEL, (Tensor.of("x", x),), (RequestedOutput("label"),), id=str(number)
        )
        return encode_request(request), labels

    def _judge(self, client: int, number: int, response: InferResponse, wanted: Labels) -> None:
        if response.id != str(number) or wrong(response.outputs[0].data, wanted):
            self._wrong(f"client {client}, request {number}", repr(response))
        else:
            self.answered[client] += 1

    def _ended_by(self, what: str, sent_s: float, error: grpc.RpcError) -> None:
        code, text = error.code(), error.details() or ""
        refused = code is grpc.StatusCode.UNAVAILABLE and _REFUSAL in text
        nobody_there = code is grpc.StatusCode.UNAVAILABLE and sent_s > self.signalled_s
        if refused or nobody_there:
            with self._lock:
                self.refused += 1
        else:
            self._wrong(what, f"{code.name}: {text}")

    def _unary(self, client: int, channel: grpc.Channel) -> None:
        infer = channel.unary_unary(f"{_SERVICE}ModelInfer")
        number = 0
        while not self._stop.is_set():
            message, labels = self._message(number)
            sent_s = time.monotonic()
            try:
                answer = infer(message, timeout=_TIMEOUT_S)
            except grpc.RpcError as error:
                self._ended_by(f"client {client}, request {number}", sent_s, error)
                return
            self._judge(client, number, decode_response(answer), labels)
            number += 1

    def _stream(self, client: int, channel: grpc.Channel) -> None:
        """Keep a few messages in flight; answers must have no gap until the stream ends."""
        room = threading.Semaphore(_IN_FLIGHT)
        ended = threading.Event()

        def messages() -> Iterator[bytes]:
            number = 0
            while not (ended.is_set() or self._stop.is_set()):
                if room.acquire(timeout=0.1):
                    yield self._message(number)[0]
                    number += 1

        number = 0
        opened_s = time.monotonic()
        refused_from = None
        try:
            call = channel.stream_stream(f"{_SERVICE}ModelStreamInfer")
            for data in call(messages(), timeout=_TIMEOUT_S):
                text, response = decode_stream_response(data)
                if not text and refused_from is None:
                    self._judge(client, number, response, self._message(number)[1])
                elif _REFUSAL in text:
                    # Read after the signal: rejected, and so are all that follow.
                    refused_from = number
                else:
                    self._wrong(f"client {client}, message {number}", f"{text!r} {response!r}")
                number += 1
                room.release()
        except grpc.RpcError as error:
            self._ended_by(f"client {client}, stream at {number}", opened_s, error)
        finally:
            ended.set()
