"""Call the RPCs of the protocol over one channel."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError

from client.connection.channel import SERVICE, RetryPolicy, open_channel
from client.connection.credentials import Credentials
from client.connection.hedging import Hedging
from client.connection.reachability import unreachable
from client.errors import DeadlineExceeded, RequestFailed, Unavailable, Unreachable, UsageError
from protos import inference_pb2 as pb
from protos import malloc

Response = TypeVar("Response")

_PROBE = pb.ServerLiveRequest().SerializeToString()
_SILENCE_S = 10.0
_PROBE_EVERY_S = 0.1


class Connection:
    """A channel to one or several servers; errors are raised as `RequestFailed`.

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
        malloc.keep_in_process()
        self.addresses = tuple(addresses)
        self.retry = retry or RetryPolicy()
        self._credentials = credentials = credentials or Credentials()
        self._metadata = credentials.metadata
        self._closed = False
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
        self.check_open()
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
        with self._while_open():
            call = self._infer.future(message, timeout=deadline_s, metadata=self._metadata)
        call.add_done_callback(lambda ended: done(self._outcome(ended)))

    def infer_stream(
        self, messages: Iterator[bytes], deadline_s: float | None = None
    ) -> Iterator[bytes]:
        """Send encoded ModelInferRequests as the server takes them, and yield its answers.

        The first error ends the stream. Leaving the generator early cancels the call.
        """
        metadata = (*self._metadata, ("triton_grpc_error", "true"))
        with self._while_open():
            call = self._infer_stream(messages, timeout=deadline_s, metadata=metadata)
        try:
            yield from call
        except grpc.RpcError as error:
            raise self._failure(error) from None
        finally:
            call.cancel()

    def check_open(self) -> None:
        """Raise UsageError once the connection is closed."""
        if self._closed:
            raise UsageError("the client is closed; make another one")

    def check_reachable(self, deadline_s: float | None = None) -> None:
        """Raise Unreachable unless a server answers; retried like other calls."""
        wait_s = _SILENCE_S if deadline_s is None else min(deadline_s, _SILENCE_S)
        end_s = time.monotonic() + wait_s
        failures = 0
        while (failure := self._probe(end_s)) is not None:
            failures += 1
            if not failure.waiting_helps or not self.retry.wait(failures, end_s):
                raise failure

    def wait_until_ready(self, timeout_s: float) -> None:
        """Wait for a server that answers; Unreachable, with the reason, at the timeout."""
        end_s = time.monotonic() + timeout_s
        while (failure := self._probe(end_s)) is not None:
            # Another one of several servers may be about to start.
            if not failure.waiting_helps and len(self.addresses) == 1:
                raise failure
            left_s = end_s - time.monotonic()
            if left_s <= 0:
                raise Unreachable(f"no server was ready within {timeout_s:g} s: {failure.text}")
            time.sleep(min(_PROBE_EVERY_S, left_s))

    def close(self) -> None:
        """Close the channel; calls under way are cancelled."""
        self._closed = True
        self._on_close.close()

    def _probe(self, end_s: float) -> Unreachable | None:
        """Why no server answers until `end_s`; None if one does, even with an error."""
        self.check_open()
        call = self._channel.unary_unary(f"/{SERVICE}/ServerLive")
        timeout_s = max(end_s - time.monotonic(), 0.0)
        try:
            with self._while_open():
                call(_PROBE, timeout=timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            failure = self._failure(error)
            if isinstance(failure, Unreachable):
                return failure
            if isinstance(failure, Unavailable | DeadlineExceeded):
                text = "no answer" if isinstance(failure, DeadlineExceeded) else failure.text
                return Unreachable(f"cannot reach {','.join(self.addresses)}: {text}")
        return None

    def _answer(self, call: Any, message: bytes, deadline_s: float | None) -> bytes:
        end_s = None if deadline_s is None else time.monotonic() + deadline_s
        failures = 0
        while True:
            try:
                with self._while_open():
                    answer: bytes = call(message, timeout=deadline_s, metadata=self._metadata)
                return answer
            except grpc.RpcError as error:
                failure = self._failure(error)
            failures += 1
            if not isinstance(failure, Unavailable) or not self.retry.wait(failures, end_s):
                raise failure
            deadline_s = None if end_s is None else end_s - time.monotonic()

    @contextlib.contextmanager
    def _while_open(self) -> Iterator[None]:
        """Check that the connection is open, before a call and while it begins."""
        self.check_open()
        try:
            yield
        except ValueError:
            # gRPC raises this if the channel was closed meanwhile.
            self.check_open()
            raise

    def _outcome(self, ended: Any) -> bytes | RequestFailed:
        """The result of a call that has ended."""
        if ended.code() is not grpc.StatusCode.OK:
            return self._failure(ended)
        answer: bytes = ended.result()
        return answer

    def _failure(self, ended: Any) -> RequestFailed:
        """The error of a failed call."""
        code, text = ended.code().name, ended.details() or ""
        if code == "UNAVAILABLE":
            return unreachable(text, self.addresses, self._credentials) or Unavailable(code, text)
        if code == "DEADLINE_EXCEEDED":
            return DeadlineExceeded(code, text)
        return RequestFailed(code, text)
