"""Clients that ask one server until it refuses, and keep what was wrong with the answers."""

import threading
import time
from collections.abc import Callable, Iterator

import grpc
import numpy as np

from protos.codec import (
    InferRequest,
    InferResponse,
    RequestedOutput,
    decode_response,
    decode_stream_response,
    encode_request,
)
from protos.tensors import Tensor
from soak.known_answers import MODEL, Labels, Questions

UNARY, STREAMS = 3, 3
_SERVICE = "/inference.GRPCInferenceService/"
_IN_FLIGHT = 8
_TIMEOUT_S = 30.0
# The server's own words for a request that it did not accept.
_REFUSAL = "the server is stopping"


class Load:
    """Clients, each on a channel of its own, without retries: what the server says is seen.

    A request that fails is wrong unless the server refused it in its own words, or it was sent
    after the signal and found nobody.
    """

    def __init__(self, address: str, questions: Questions) -> None:
        self._address = address
        self._questions = questions
        self.answered = [0] * (UNARY + STREAMS)
        self.refused = 0
        self.wrong: list[tuple[str, str]] = []
        # When the signal was sent, on the monotonic clock.
        self.signalled_s = float("inf")
        self._lock = threading.Lock()
        self._give_up = threading.Event()
        ways = [self._unary] * UNARY + [self._stream] * STREAMS
        self._threads = [
            threading.Thread(target=self._run, args=(way, number))
            for number, way in enumerate(ways)
        ]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._give_up.set()
        self.join()

    def join(self) -> None:
        """Wait until every client was refused, or for a time that is too long."""
        for thread in self._threads:
            thread.join(_TIMEOUT_S)
            if thread.is_alive():
                self._wrong("client", f"still waits after {_TIMEOUT_S:g} s")

    def wait_until_answered(self, times: int) -> None:
        """Return once each client was answered so often, or something was wrong."""
        end = time.monotonic() + _TIMEOUT_S
        while min(self.answered) < times and not self.wrong:
            if time.monotonic() > end:
                self._wrong("clients", f"answered {self.answered} times in {_TIMEOUT_S:g} s")
            time.sleep(0.002)

    def _wrong(self, what: str, came: str) -> None:
        with self._lock:
            self.wrong.append((what, came))

    def _run(self, way: Callable[[int, grpc.Channel], None], client: int) -> None:
        options = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(self._address, options=options) as channel:
            try:
                way(client, channel)
            except Exception as error:
                self._wrong(f"client {client}", repr(error))

    def _message(self, number: int) -> tuple[bytes, Labels]:
        x, labels = self._questions[number]
        request = InferRequest(
            MODEL, (Tensor.of("x", x),), (RequestedOutput("label"),), id=str(number)
        )
        return encode_request(request), labels

    def _judge(self, client: int, number: int, response: InferResponse, wanted: Labels) -> None:
        labels = response.outputs[0].data
        if labels is None or response.id != str(number) or not np.array_equal(labels, wanted):
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
        while not self._give_up.is_set():
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
        """Keep a few messages in flight; answers come without a gap until the stream ends."""
        room = threading.Semaphore(_IN_FLIGHT)
        ended = threading.Event()

        def messages() -> Iterator[bytes]:
            number = 0
            while not (ended.is_set() or self._give_up.is_set()):
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
                    # Read after the signal: refused, and so is all that follows.
                    refused_from = number
                else:
                    self._wrong(f"client {client}, message {number}", f"{text!r} {response!r}")
                number += 1
                room.release()
        except grpc.RpcError as error:
            self._ended_by(f"client {client}, stream at {number}", opened_s, error)
        finally:
            ended.set()
