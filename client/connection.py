"""Call the RPCs of the protocol over one channel."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError

from client.channel import SERVICE, RetryPolicy, open_channel
from client.credentials import Credentials
from client.errors import DeadlineExceeded, RequestFailed, Unavailable
from client.hedging import Hedging
from protos import buffers

Response = TypeVar("Response")


class Connection:
    """A channel to one server or several; errors come as `RequestFailed`.

    `addresses`: HOST:PORT or unix:/path each. The rest is as `Client` says.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        retry: RetryPolicy | None = None,
        credentials: Credentials | None = None,
        *,
        hedge_after_s: float | None = None,
        keepalive_s: float | None = None,
    ) -> None:
        buffers.keep_in_process()
        self.addresses = tuple(addresses)
        self.retry = retry or RetryPolicy()
        credentials = credentials or Credentials()
        self._metadata = credentials.metadata
        self._on_close = contextlib.ExitStack()
        self._channel = open_channel(self.addresses, credentials, keepalive_s)
        self._on_close.callback(self._channel.close)
        if hedge_after_s is not None:
            hedging = Hedging(self.addresses, credentials, hedge_after_s)
            self._on_close.callback(hedging.close)
            self._channel = grpc.intercept_channel(self._channel, hedging)
        self._infer = self._channel.unary_unary(f"/{SERVICE}/ModelInfer")
        self._infer_stream = self._channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")

    def control(
        self, method: str, request: Any, response: type[Response], deadline_s: float | None = None
    ) -> Response:
        """Call an RPC whose messages are small."""
        call = self._channel.unary_unary(f"/{SERVICE}/{method}")
        data = self._answer(call, request.SerializeToString(), deadline_s)
        try:
            answer: Response = response.FromString(data)  # type: ignore[attr-defined]
        except DecodeError:
            raise RequestFailed("DATA_LOSS", f"the answer to {method} is malformed") from None
        return answer

    def infer(self, message: bytes, deadline_s: float | None = None) -> bytes:
        """Send an encoded ModelInferRequest; the encoded ModelInferResponse."""
        return self._answer(self._infer, message, deadline_s)

    def infer_later(
        self,
        message: bytes,
        deadline_s: float | None,
        done: Callable[[bytes | RequestFailed], None],
    ) -> None:
        """As `infer`, without waiting or retrying: `done` gets the answer in gRPC's thread."""
        call = self._infer.future(message, timeout=deadline_s, metadata=self._metadata)
        call.add_done_callback(lambda ended: done(_outcome(ended)))

    def infer_stream(
        self, messages: Iterator[bytes], deadline_s: float | None = None
    ) -> Iterator[bytes]:
        """Send encoded ModelInferRequests as the server takes them, and yield its answers.

        The first error ends the stream. Leaving the generator early cancels the call.
        """
        metadata = (*self._metadata, ("triton_grpc_error", "true"))
        call = self._infer_stream(messages, timeout=deadline_s, metadata=metadata)
        try:
            yield from call
        except grpc.RpcError as error:
            raise _failure(error) from None
        finally:
            call.cancel()

    def wait_until_ready(self, timeout_s: float) -> None:
        """Wait for the connection; Unavailable when there is none by then."""
        try:
            grpc.channel_ready_future(self._channel).result(timeout_s)
        except grpc.FutureTimeoutError:
            raise Unavailable(
                "UNAVAILABLE",
                f"no server answered at {','.join(self.addresses)} within {timeout_s:g} s",
            ) from None

    def close(self) -> None:
        """Close the channel; calls under way are cancelled."""
        self._on_close.close()

    def _answer(self, call: Any, message: bytes, deadline_s: float | None) -> bytes:
        end_s = None if deadline_s is None else time.monotonic() + deadline_s
        failures = 0
        while True:
            try:
                answer: bytes = call(message, timeout=deadline_s, metadata=self._metadata)
                return answer
            except grpc.RpcError as error:
                failure = _failure(error)
            failures += 1
            if not isinstance(failure, Unavailable) or not self.retry.wait(failures, end_s):
                raise failure
            deadline_s = None if end_s is None else end_s - time.monotonic()


def _outcome(ended: Any) -> bytes | RequestFailed:
    """What came of a call that has ended."""
    if ended.code() is not grpc.StatusCode.OK:
        return _failure(ended)
    answer: bytes = ended.result()
    return answer


def _failure(ended: Any) -> RequestFailed:
    """What a call that did not end well raises."""
    code, text = ended.code().name, ended.details() or ""
    kind = {"UNAVAILABLE": Unavailable, "DEADLINE_EXCEEDED": DeadlineExceeded}
    return kind.get(code, RequestFailed)(code, text)
