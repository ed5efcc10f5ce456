"""Call the RPCs of the protocol over one channel."""

import contextlib
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from google.protobuf.message import DecodeError

from client.connection.call_times import CallTimes
from client.connection.channel import SERVICE, RetryPolicy, open_channel
from client.connection.credentials import Credentials
from client.connection.hedging import Hedging
from client.connection.reachability import unreachable
from client.errors import DeadlineExceeded, RequestFailed, Unavailable, Unreachable, UsageError
from protos import inference_pb2 as pb
from protos import malloc
from protos.codec import Pieces
from transport.calling.client_call import CallFailed, ClientCall
from transport.calling.failures import NotConnected
from transport.status import Code, Status

Response = TypeVar("Response")

_PROBE = (pb.ServerLiveRequest().SerializeToString(),)
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
        self._hedging: Hedging | None = None
        if hedge_after_s is not None:
            self._hedging = Hedging(self.addresses, credentials, hedge_after_s)
            self._on_close.callback(self._hedging.close)
        self._infer = self._channel.unary_unary(_path("ModelInfer"))
        self._infer_stream = self._channel.stream_stream(_path("ModelStreamInfer"))
        # Of a connection that nobody closes; not here, as the collector may run in any thread.
        weakref.finalize(self, self._channel.loop.call_soon, self._on_close.close).atexit = False

    def control(
        self, method: str, request: Any, response: type[Response], deadline_s: float | None = None
    ) -> Response:
        """Call an RPC whose messages are small."""
        self.check_open()
        data = self._answer(method, (request.SerializeToString(),), deadline_s)
        try:
            answer: Response = response.FromString(data)  # type: ignore[attr-defined]
        except DecodeError:
            raise RequestFailed("DATA_LOSS", f"the answer to {method} is malformed") from None
        return answer

    def infer(
        self, message: Pieces, deadline_s: float | None = None, times: CallTimes | None = None
    ) -> memoryview:
        """Send an encoded ModelInferRequest; the encoded ModelInferResponse.

        `times` is filled in, except where a second server is asked.
        """
        return self._answer("ModelInfer", message, deadline_s, times)

    def infer_later(
        self,
        message: Pieces,
        deadline_s: float | None,
        done: Callable[[memoryview | RequestFailed], None],
        times: CallTimes | None = None,
    ) -> None:
        """As `infer`, without waiting, retrying or hedging: `done` gets the answer.

        The transport's thread calls it. Until then the arrays in `message` have to stay as they
        are.
        """

        def ended(call: ClientCall) -> None:
            outcome = self._outcome(call)
            if times is not None:
                times.answer_began_ns = call.answer_began_ns
            done(outcome)

        with self._while_open():
            call = self._infer.future(message, deadline_s, self._metadata, on_sent=_on_sent(times))
        call.add_done_callback(ended)

    def infer_stream(
        self,
        messages: Iterator[Pieces],
        deadline_s: float | None = None,
        times: CallTimes | None = None,
    ) -> Iterator[memoryview]:
        """Send encoded ModelInferRequests as the server takes them, and yield its answers.

        The next message is asked for, in another thread, when the kernel has the one before, or
        the call has ended. The first error ends the stream. Leaving the generator early cancels the
        call. Before an answer is yielded, `times` gets the instant at which it began.
        """
        metadata = (*self._metadata, ("triton_grpc_error", "true"))
        with self._while_open():
            call = self._infer_stream(messages, deadline_s, metadata)
        try:
            for answer in call:
                if times is not None:
                    times.answer_began_ns = call.answer_began_ns
                yield answer
        except CallFailed as error:
            raise self._failure(error.status) from None
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
        try:
            self._call("ServerLive", _PROBE, max(end_s - time.monotonic(), 0.0))
        except Unreachable as failure:
            return failure
        except (Unavailable, DeadlineExceeded) as failure:
            text = "no answer" if isinstance(failure, DeadlineExceeded) else failure.text
            return Unreachable(f"cannot reach {','.join(self.addresses)}: {text}")
        except RequestFailed:
            return None
        return None

    def _answer(
        self,
        method: str,
        message: Pieces,
        deadline_s: float | None,
        times: CallTimes | None = None,
    ) -> memoryview:
        end_s = None if deadline_s is None else time.monotonic() + deadline_s
        failures = 0
        while True:
            try:
                return self._call(method, message, deadline_s, times)
            except Unavailable:
                failures += 1
                if not self.retry.wait(failures, end_s):
                    raise
            deadline_s = None if end_s is None else end_s - time.monotonic()

    def _call(
        self,
        method: str,
        message: Pieces,
        deadline_s: float | None,
        times: CallTimes | None = None,
    ) -> memoryview:
        """Call once; RequestFailed unless that ends with OK."""
        path = _path(method)
        try:
            with self._while_open():
                if self._hedging is not None:
                    call = self._hedging.call(path, message, deadline_s, self._metadata)
                    answer: memoryview = call.result()
                    return answer
                answer, call = self._channel.unary_unary(path).with_call(
                    message, deadline_s, self._metadata, on_sent=_on_sent(times)
                )
                if times is not None:
                    times.answer_began_ns = call.answer_began_ns
                return answer
        except CallFailed as error:
            raise self._failure(error.status) from None

    @contextlib.contextmanager
    def _while_open(self) -> Iterator[None]:
        """Check that the connection is open, before a call and while it begins."""
        self.check_open()
        try:
            yield
        except ValueError:
            # The channel raises this if it was closed meanwhile.
            self.check_open()
            raise

    def _outcome(self, ended: ClientCall) -> memoryview | RequestFailed:
        """The result of a call that has ended."""
        failed = ended.exception()
        if failed is not None:
            return self._failure(failed.status)
        answer: memoryview = ended.result()
        return answer

    def _failure(self, status: Status) -> RequestFailed:
        """The error of a failed call."""
        if isinstance(status, NotConnected):
            return unreachable(status, self.addresses, self._credentials)
        if status.code is Code.UNAVAILABLE:
            return Unavailable(status.code.name, status.text)
        if status.code is Code.DEADLINE_EXCEEDED:
            return DeadlineExceeded(status.code.name, status.text)
        return RequestFailed(status.code.name, status.text)


def _on_sent(times: CallTimes | None) -> Callable[[int], None] | None:
    return None if times is None else times.sent


def _path(method: str) -> str:
    return f"/{SERVICE}/{method}"
