"""Call the RPCs of the protocol over one channel."""

import atexit
import contextlib
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from google.protobuf.message import DecodeError

from client.connection import hedging
from client.connection.blocking import Blocking
from client.connection.call_options import CallSettings, left_s
from client.connection.call_times import CallTimes
from client.connection.channel import SERVICE, Balancing, RetryPolicy, open_channel
from client.connection.credentials import Credentials
from client.connection.hedging import Hedging
from client.connection.infer_stream import InferStream, Iterated
from client.connection.metadata import ERRORS_END_STREAMS
from client.connection.reachability import unreachable
from client.connection.waiting import Series, Waiting, each
from client.errors import (
    DeadlineExceeded,
    Interrupted,
    RequestFailed,
    Unavailable,
    Unreachable,
    UsageError,
)
from protos import inference_pb2 as pb
from protos import malloc
from protos.codec import Pieces
from transport.calling.client_call import ClientCall
from transport.calling.failures import Cut, NotConnected
from transport.status import Code, Status

Response = TypeVar("Response")

_PROBE = (pb.ServerLiveRequest().SerializeToString(),)
_SILENCE_S = 10.0
_PROBE_EVERY_S = 0.1
_TRY_EVERY_S = 0.01
ONCE = RetryPolicy(attempts=1)


class Connection:
    """A channel to one or several servers; errors are raised as `RequestFailed`.

    `addresses`: HOST:PORT or unix:/path each. `waiting`: how coroutines of this class wait; with
    None they block. The rest is as `Client` says.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        retry: RetryPolicy | None = None,
        credentials: Credentials | None = None,
        *,
        hedge_after_s: float | None = None,
        keepalive_s: float | None = None,
        deadline_s: float | None = None,
        balancing: Balancing | None = None,
        waiting: Waiting | None = None,
    ) -> None:
        malloc.keep_in_process()
        self.addresses = tuple(addresses)
        self.waiting = waiting or Blocking()
        self._credentials = credentials = credentials or Credentials()
        self._balancing = balancing = balancing or Balancing()
        self.settings = CallSettings(
            retry or RetryPolicy(), deadline_s, hedge_after_s, credentials.metadata
        )
        if hedge_after_s is not None:
            hedging.check(self.addresses, hedge_after_s)
        self._closed = False
        self._on_close = contextlib.ExitStack()
        self._channel = open_channel(self.addresses, credentials, keepalive_s, balancing)
        self._on_close.callback(self._channel.close)
        self._lock = threading.Lock()
        self._hedging: Hedging | None = None
        self._infer = self._channel.unary_unary(_path("ModelInfer"))
        self._infer_stream = self._channel.stream_stream(_path("ModelStreamInfer"))
        # Of a connection that nobody closes; not here, as the collector may run in any thread.
        weakref.finalize(self, self._channel.loop.call_soon, self._on_close.close).atexit = False
        _open.add(self)

    async def control(
        self, method: str, request: Any, response: type[Response], settings: CallSettings
    ) -> Response:
        """Call an RPC whose messages are small."""
        self.check_open()
        data = await self._answer(method, (request.SerializeToString(),), settings)
        try:
            answer: Response = response.FromString(data)  # type: ignore[attr-defined]
        except DecodeError:
            raise RequestFailed("DATA_LOSS", f"the answer to {method} is malformed") from None
        return answer

    async def infer(
        self, message: Pieces, settings: CallSettings, times: CallTimes | None = None
    ) -> memoryview:
        """Send an encoded ModelInferRequest; the encoded ModelInferResponse.

        `times` is filled in, except where a second server is asked.
        """
        return await self._answer("ModelInfer", message, settings, times)

    def infer_later(
        self,
        message: Pieces,
        deadline_s: float | None,
        done: Callable[[memoryview | RequestFailed], None],
        times: CallTimes | None = None,
        retry: RetryPolicy = ONCE,
    ) -> None:
        """As `infer`, without waiting or hedging: `done` gets the answer.

        The transport's thread calls it. Until then the arrays in `message` have to stay as they
        are. It is not called if the connection is closed before a repetition.
        """
        end_s = None if deadline_s is None else time.monotonic() + deadline_s
        metadata = self.settings.metadata
        failures = 0

        def begin() -> None:
            with self._while_open():
                call = self._infer.future(message, left_s(end_s), metadata, on_sent=_on_sent(times))
            call.add_done_callback(ended)

        def ended(call: ClientCall) -> None:
            nonlocal failures
            outcome = self._outcome(call)
            if times is not None:
                times.answer_began_ns, times.server = call.answer_began_ns, call.server
            if isinstance(outcome, Unavailable | Interrupted):
                failures += 1
                pause_s = retry.pause_s(failures, end_s)
                if pause_s is not None:
                    _lose(times)
                    self._channel.loop.call_later(pause_s, again)
                    return
            done(outcome)

        def again() -> None:
            with contextlib.suppress(UsageError):
                begin()

        begin()

    def infer_stream(
        self,
        messages: Iterator[Pieces],
        deadline_s: float | None = None,
        times: CallTimes | None = None,
    ) -> Iterator[memoryview]:
        """Send encoded ModelInferRequests as the server takes them, and yield its answers.

        Of a connection that blocks. The next message is asked for, in another thread, when the
        kernel has the one before, or the call has ended. The first error ends the stream. Leaving
        the generator early cancels the call. Before an answer is yielded, `times` gets the instant
        at which it began.
        """
        stream = self.open_stream(Iterated(messages), deadline_s, self.settings, times)
        try:
            yield from each(stream)
        finally:
            stream.cancel()

    def open_stream(
        self,
        messages: Series[Pieces],
        timeout_s: float | None,
        settings: CallSettings,
        times: CallTimes | None = None,
    ) -> InferStream:
        """Begin to send encoded ModelInferRequests; see `infer_stream`."""
        metadata = (*settings.metadata, (ERRORS_END_STREAMS, "true"))
        with self._while_open():
            exchange = self.waiting.exchange(self._infer_stream, messages, timeout_s, metadata)
        return InferStream(exchange, self._failure, times)

    @property
    def closed(self) -> bool:
        """Whether it was closed, at the latest when the interpreter exits."""
        return self._closed

    def check_open(self) -> None:
        """Raise UsageError once the connection is closed."""
        if self._closed:
            raise UsageError("the client is closed; make another one")

    async def check_reachable(self, settings: CallSettings) -> None:
        """Raise Unreachable unless a server answers; retried like other calls."""
        end_s = time.monotonic() + _SILENCE_S
        bound_s = settings.ends_s()
        end_s = end_s if bound_s is None else min(end_s, bound_s)
        failures = 0
        while (failure := await self._probe(end_s, settings)) is not None:
            failures += 1
            pause_s = settings.retry.pause_s(failures, end_s)
            if not failure.waiting_helps or pause_s is None:
                raise failure
            await self.waiting.sleep(pause_s)

    async def wait_until_ready(self, timeout_s: float) -> None:
        """Wait for a server that answers; Unreachable, with the reason, at the timeout."""
        end_s = time.monotonic() + timeout_s
        while (failure := await self._probe(end_s, self.settings)) is not None:
            # Another one of several servers may be about to start.
            if not failure.waiting_helps and len(self.addresses) == 1:
                raise failure
            pause_s = end_s - time.monotonic()
            if pause_s <= 0:
                raise Unreachable(f"no server was ready within {timeout_s:g} s: {failure.text}")
            await self.waiting.sleep(min(_PROBE_EVERY_S, pause_s))

    @property
    def servers(self) -> tuple[str, ...]:
        """The servers that the addresses stand for now, as `CallTimes.server` names them.

        A name has none before its first look-up.
        """
        return self._channel.servers

    async def wait_for_each(self, timeout_s: float) -> None:
        """Wait, after a first call, until each server is connected or could not be, or so long.

        Before that, calls go to those that are connected alone.
        """
        end_s = time.monotonic() + timeout_s
        while not self._channel.tried and time.monotonic() < end_s:
            await self.waiting.sleep(_TRY_EVERY_S)

    def close(self) -> None:
        """Close the channel; calls under way are cancelled."""
        self._closed = True
        with self._lock:
            self._on_close.close()

    async def _probe(self, end_s: float, settings: CallSettings) -> Unreachable | None:
        """Why no server answers until `end_s`; None if one does, even with an error."""
        timeout_s = max(end_s - time.monotonic(), 0.0)
        try:
            await self._call("ServerLive", _PROBE, timeout_s, settings)
        except Unreachable as failure:
            return failure
        except (Unavailable, DeadlineExceeded) as failure:
            text = "no answer" if isinstance(failure, DeadlineExceeded) else failure.text
            return Unreachable(f"cannot reach {','.join(self.addresses)}: {text}")
        except RequestFailed:
            return None
        return None

    async def _answer(
        self,
        method: str,
        message: Pieces,
        settings: CallSettings,
        times: CallTimes | None = None,
    ) -> memoryview:
        end_s = settings.ends_s()
        failures = 0
        while True:
            try:
                return await self._call(method, message, left_s(end_s), settings, times)
            except (Unavailable, Interrupted):
                failures += 1
                pause_s = settings.retry.pause_s(failures, end_s)
                if pause_s is None:
                    raise
                _lose(times)
            await self.waiting.sleep(pause_s)

    async def _call(
        self,
        method: str,
        message: Pieces,
        timeout_s: float | None,
        settings: CallSettings,
        times: CallTimes | None = None,
    ) -> memoryview:
        """Call once; RequestFailed unless that ends with OK."""
        path, metadata, after_s = _path(method), settings.metadata, settings.hedge_after_s
        with self._while_open():
            if after_s is not None:
                second = self._hedged(after_s)
                call = await second.call(path, message, timeout_s, metadata, after_s)
            else:
                call = self._channel.unary_unary(path).future(
                    message, timeout_s, metadata, on_sent=_on_sent(times)
                )
                await self.waiting.until_ended(call)
        outcome = self._outcome(call)
        if times is not None:
            times.answer_began_ns, times.server = call.answer_began_ns, call.server
        if isinstance(outcome, RequestFailed):
            raise outcome
        return outcome

    def _hedged(self, after_s: float) -> Hedging:
        """Channels for hedging, made when they are first needed."""
        hedging.check(self.addresses, after_s)
        with self._lock:
            self.check_open()
            if self._hedging is None:
                self._hedging = Hedging(
                    self.addresses, self._credentials, self._balancing, self.waiting
                )
                self._on_close.callback(self._hedging.close)
            return self._hedging

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
        if isinstance(status, Cut):
            return Interrupted(status.code.name, status.text)
        if status.code is Code.DEADLINE_EXCEEDED:
            return DeadlineExceeded(status.code.name, status.text)
        return RequestFailed(status.code.name, status.text)


def _on_sent(times: CallTimes | None) -> Callable[[int], None] | None:
    return None if times is None else times.sent


def _lose(times: CallTimes | None) -> None:
    """Note that the attempt that has ended is not the last."""
    if times is not None:
        times.lost += (times.server,)


def _path(method: str) -> str:
    return f"/{SERVICE}/{method}"


_open: "weakref.WeakSet[Connection]" = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Close what nobody closed: later, calls of finalizers would wait for threads that are gone."""
    for connection in list(_open):
        connection.close()
