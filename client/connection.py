"""Call the RPCs of one server over one channel."""

import contextlib
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc

from client.errors import DeadlineExceeded, RequestFailed, Unavailable
from protos import buffers
from protos import inference_pb2 as pb

_SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
# Protobuf's own bound on one message.
MAX_MESSAGE_BYTES = 2**31 - 1

Response = TypeVar("Response")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How UNAVAILABLE is retried: with exponential backoff, in seconds.

    Inference keeps no state, so sending a request again is safe. gRPC does so for single requests;
    of a stream, where it may lose messages, `client.batch_stream` sends what has no answer again.
    There the attempts count since the last answer.
    """

    attempts: int = 4
    initial_backoff_s: float = 0.1
    max_backoff_s: float = 2.0

    def backoff_s(self, failures: int) -> float:
        """How long to wait after so many failures in a row: random, as gRPC does, by a fifth."""
        wait_s = min(self.initial_backoff_s * 2.0 ** (failures - 1), self.max_backoff_s)
        return wait_s * random.uniform(0.8, 1.2)


class Connection:
    """A channel to `address` (HOST:PORT or unix:/path); errors come as `RequestFailed`."""

    def __init__(self, address: str, retry: RetryPolicy | None = None) -> None:
        buffers.keep_in_process()
        self.address = address
        self.retry = retry = retry or RetryPolicy()
        options: list[tuple[str, Any]] = [
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", -1),
            ("grpc.enable_retries", int(retry.attempts > 1)),
            # Calls share a process-wide connection otherwise, and with it one flow-control window.
            ("grpc.use_local_subchannel_pool", 1),
        ]
        if retry.attempts > 1:
            # The default buffer of 256 KiB would commit every call that carries an example.
            options.append(("grpc.per_rpc_retry_buffer_size", MAX_MESSAGE_BYTES))
            options.append(("grpc.service_config", _service_config(retry)))
        self._channel = grpc.insecure_channel(address, options=options)
        self._infer = self._channel.unary_unary(f"/{_SERVICE}/ModelInfer")
        self._infer_stream = self._channel.stream_stream(f"/{_SERVICE}/ModelStreamInfer")

    def control(
        self, method: str, request: Any, response: type[Response], deadline_s: float | None = None
    ) -> Response:
        """Call an RPC whose messages are small."""
        call = self._channel.unary_unary(
            f"/{_SERVICE}/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString,  # type: ignore[attr-defined]
        )
        with _translated():
            answer: Response = call(request, timeout=deadline_s)
        return answer

    def infer(self, message: bytes, deadline_s: float | None = None) -> bytes:
        """Send an encoded ModelInferRequest; the encoded ModelInferResponse."""
        with _translated():
            answer: bytes = self._infer(message, timeout=deadline_s)
        return answer

    def infer_later(
        self,
        message: bytes,
        deadline_s: float | None,
        done: Callable[[bytes | RequestFailed], None],
    ) -> None:
        """As `infer`, without waiting: `done` gets the answer, in a thread of gRPC's."""
        call = self._infer.future(message, timeout=deadline_s)
        call.add_done_callback(lambda ended: done(_outcome(ended)))

    def infer_stream(
        self, messages: Iterator[bytes], deadline_s: float | None = None
    ) -> Iterator[bytes]:
        """Send encoded ModelInferRequests as the server takes them, and yield its answers.

        The first error ends the stream. Leaving the generator early cancels the call.
        """
        call = self._infer_stream(
            messages, timeout=deadline_s, metadata=(("triton_grpc_error", "true"),)
        )
        try:
            with _translated():
                yield from call
        finally:
            call.cancel()

    def wait_until_ready(self, timeout_s: float) -> None:
        """Wait for the connection; Unavailable when there is none by then."""
        try:
            grpc.channel_ready_future(self._channel).result(timeout_s)
        except grpc.FutureTimeoutError:
            raise Unavailable(
                "UNAVAILABLE", f"no server answered at {self.address} within {timeout_s:g} s"
            ) from None

    def close(self) -> None:
        """Close the channel; calls under way are cancelled."""
        self._channel.close()


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        raise _failure(error) from None


def _outcome(ended: Any) -> bytes | RequestFailed:
    if ended.code() is not grpc.StatusCode.OK:
        return _failure(ended)
    answer: bytes = ended.result()
    return answer


def _failure(ended: Any) -> RequestFailed:
    """What a call that did not end well raises."""
    code, text = ended.code().name, ended.details() or ""
    kind = {"UNAVAILABLE": Unavailable, "DEADLINE_EXCEEDED": DeadlineExceeded}
    return kind.get(code, RequestFailed)(code, text)


def _service_config(retry: RetryPolicy) -> str:
    return json.dumps(
        {
            "methodConfig": [
                {
                    "name": [{}],
                    "retryPolicy": {
                        "maxAttempts": retry.attempts,
                        "initialBackoff": f"{retry.initial_backoff_s}s",
                        "maxBackoff": f"{retry.max_backoff_s}s",
                        "backoffMultiplier": 2,
                        "retryableStatusCodes": ["UNAVAILABLE"],
                    },
                },
                # gRPC's C++ core loses messages of a stream that it sends again.
                {"name": [{"service": _SERVICE, "method": "ModelStreamInfer"}]},
            ]
        }
    )
