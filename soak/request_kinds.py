"""All kinds of requests that might leak, to be sent any number of times."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from client.client import Client
from client.connection.channel import RetryPolicy
from client.errors import RequestFailed
from protos import inference_pb2 as pb
from protos.codec import InferRequest, encode_request
from protos.stub import InferenceStub
from protos.tensors import Tensor
from soak.known_answers import MODEL, SMALL, put_model

# Preflight takes a second per load, in a separate process; `files_fuzz` tests it.
UNTRIED = ("--validation", "off")
# Few worker threads: a pool that is still growing is not a leak, but looks like one.
OPTIONS = (
    *("--model-control", "explicit", "--load-model", MODEL),
    *("--workers", "8", "--max-streams", "8"),
)
_TIMEOUT_S = 60.0
_SERVICE = "/inference.GRPCInferenceService/"
# Messages per stream.
_MESSAGES = 50
# Most requests in flight.
_STREAMS = 8
_BURSTS = 5


class Asker:
    """Sends requests of each kind to one server, and checks their results."""

    def __init__(self, address: str) -> None:
        """Expects a server with OPTIONS at `address`, on a folder that `prepare` has filled."""
        once = RetryPolicy(attempts=1)
        self._client = Client(address, MODEL, deadline_s=_TIMEOUT_S, retry=once)
        self._channel = grpc.insecure_channel(address)
        self._stub = InferenceStub(self._channel)
        self._x = np.random.default_rng(0).standard_normal((4, SMALL.features), np.float32)
        self._message = encode_request(InferRequest(MODEL, (Tensor.of("x", self._x),)))
        self.kinds: Mapping[str, Callable[[int], None]] = {
            "unary": self._unary,
            "streamed": self._streamed,
            "cancelled": self._cancelled,
            "failed": self._failed,
            "shared memory": self._shared,
            "reload": self._reload,
        }

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
        self._channel.close()

    def fill_pools(self) -> None:
        """Make the server start the threads that it starts on demand and keeps."""
        infer = self._channel.unary_unary(f"{_SERVICE}ModelInfer")
        stream = self._channel.stream_stream(f"{_SERVICE}ModelStreamInfer")
        load = pb.RepositoryModelLoadRequest(model_name=MODEL)
        for _ in range(_BURSTS):
            for call in [infer.future(self._message) for _ in range(2 * _STREAMS)]:
                call.result()
            for call in [self._stub.RepositoryModelLoad.future(load) for _ in range(_STREAMS)]:
                call.result()
            live = pb.ServerLiveRequest()
            for call in [self._stub.ServerLive.future(live) for _ in range(_STREAMS)]:
                call.result()
            for answers in [stream(iter([self._message] * 4)) for _ in range(_STREAMS - 1)]:
                list(answers)

    def _unary(self, count: int) -> None:
        for _ in range(count):
            self._client.predict(self._x)

    def _streamed(self, count: int) -> None:
        while count > 0:
            for _ in self._client.stream([self._x] * min(count, _MESSAGES)):
                count -= 1

    def _cancelled(self, count: int) -> None:
        """Cancel requests and streams in turn; a stream after its first answer."""
        unary = self._channel.unary_unary(f"{_SERVICE}ModelInfer")
        stream = self._channel.stream_stream(f"{_SERVICE}ModelStreamInfer")
        for number in range(count):
            if number % 2:
                unary.future(self._message, timeout=_TIMEOUT_S).cancel()
            else:
                self._answered_once(stream).cancel()
        # Cancelled requests may still be in flight; this one follows them.
        self._client.predict(self._x)

    def _answered_once(self, stream: Any) -> Any:
        """Open a stream and wait for one answer, after the earlier streams have ended."""
        while True:
            call = stream(iter([self._message] * 4), timeout=_TIMEOUT_S)
            try:
                next(call)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                    raise
            else:
                return call

    def _failed(self, count: int) -> None:
        """Send malformed requests, of another width, for no model, and one that ends its stream."""
        infer = self._channel.unary_unary(f"{_SERVICE}ModelInfer")
        narrow = Tensor.of("x", self._x[:, :-1])
        bad = (
            b"\xff" + self._message,
            encode_request(InferRequest(MODEL, (narrow,))),
            encode_request(InferRequest("nobody", (Tensor.of("x", self._x),))),
        )
        for number in range(count):
            try:
                if number % 4 < len(bad):
                    infer(bad[number % 4], timeout=_TIMEOUT_S)
                else:
                    stream = self._channel.stream_stream(f"{_SERVICE}ModelStreamInfer")
                    ends = (("triton_grpc_error", "true"),)
                    list(stream(iter([bad[0]]), timeout=_TIMEOUT_S, metadata=ends))
            except grpc.RpcError as error:
                if error.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND):
                    continue
                raise
            raise RequestFailed("OK", "a bad request was answered")

    def _shared(self, count: int) -> None:
        """Register a region, predict its rows, unregister it."""
        for _ in range(count):
            with self._client.shared(self._x) as region:
                self._client.infer_tensors([region.rows("x", 0, len(self._x))], ("label",))

    def _reload(self, count: int) -> None:
        request = pb.RepositoryModelLoadRequest(model_name=MODEL)
        for _ in range(count):
            self._stub.RepositoryModelLoad(request, timeout=_TIMEOUT_S)


def prepare(folder: Path) -> None:
    """Write the model for an Asker."""
    put_model(folder, SMALL)
