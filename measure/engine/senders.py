"""Send requests without waiting for their answers."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from queue import SimpleQueue
from typing import Protocol

from client.connection.call_times import CallTimes
from client.connection.calls import ONCE, Connection
from client.connection.channel import RetryPolicy
from client.errors import Interrupted, RequestFailed, Unavailable
from measure.core.stages import RequestTimes
from protos.codec import (
    InferRequest,
    InferResponse,
    Pieces,
    RequestedOutput,
    decode_response,
    decode_stream_response,
    request_pieces,
)
from protos.tensors import Parameter, Tensor

# An answer, decoded or raw, or the error.
Outcome = memoryview | InferResponse | RequestFailed


class Done(Protocol):
    """Callback that receives an outcome."""

    def __call__(self, outcome: Outcome, done_ns: int, times: RequestTimes | None = None) -> None:
        """Take an outcome of `done_ns` (time.perf_counter_ns); `times` of an answer."""


_CLOSING_S = 5.0
# A client of several servers sends again what one of them left unanswered, as a client of one that
# is gone cannot.
_AGAIN = RetryPolicy()

# The index of the request to send, by its number.
Pick = Callable[[int], int]


class Sender(Protocol):
    """A way to send requests; `done` is called once per request, in another thread."""

    def send(self, number: int, done: Done) -> None:
        """Send request `number`; which one that is, `Requests` decides."""

    def close(self) -> None:
        """Close what is open; requests in flight fail."""


class UnarySender:
    """Sends each request as a ModelInfer call; all share a connection.

    Where that has several servers, a call that one of them leaves unanswered is made again.
    """

    def __init__(
        self, connection: Connection, requests: Sequence[InferRequest], pick: Pick, timeout_s: float
    ) -> None:
        self._connection = connection
        self._pick = pick
        # Encoded once, to keep the sender's cost per request low.
        self._messages = [request_pieces(request) for request in requests]
        self._timeout_s = timeout_s

    def send(self, number: int, done: Done) -> None:
        """Begin a call."""
        times = RequestTimes()

        def answered(outcome: Outcome) -> None:
            done_ns = time.perf_counter_ns()
            times.received()
            if isinstance(outcome, memoryview):
                times.answer_bytes = len(outcome)
            done(outcome, done_ns, times)

        message = self._messages[self._pick(number)]
        retry = _policy(self._connection)
        self._connection.infer_later(message, self._timeout_s, answered, times.call, retry)

    def close(self) -> None:
        """Do nothing: only the connection is open."""


class StreamSender:
    """Sends all requests on one or several streams, and replaces a stream that breaks.

    An error ends a stream, and its status becomes that of every request in flight on it; where the
    connection has several servers and one of them left them unanswered, they are sent again. A
    request goes to the stream with the fewest in flight, of equally few in turn.
    """

    def __init__(
        self,
        connection: Connection,
        requests: Sequence[InferRequest],
        pick: Pick,
        streams: int = 1,
    ) -> None:
        self._connection = connection
        self._pick = pick
        self._requests = requests
        self._streams = streams
        self._lock = threading.Lock()
        self._open: list[_OpenStream] = []

    def send(self, number: int, done: Done) -> None:
        """Queue a message; the server's flow control decides when it is sent."""
        self._queue(number, done, RequestTimes())

    def _queue(self, number: int, done: Done, times: RequestTimes) -> None:
        request = self._requests[self._pick(number)]
        message = request_pieces(
            InferRequest(
                request.model_name,
                request.inputs,
                request.outputs,
                request.model_version,
                str(number),
                request.parameters,
            )
        )
        with self._lock:
            if len(self._open) < self._streams:
                stream = _OpenStream()
                threading.Thread(target=self._read, args=(stream,), daemon=True).start()
            else:
                stream = min(self._open, key=lambda one: len(one.waiting))
                self._open.remove(stream)
            self._open.append(stream)
            stream.waiting[str(number)] = done, times
            stream.messages.put((message, times.call))

    def close(self) -> None:
        """End the streams, without waiting for answers."""
        with self._lock:
            streams, self._open = self._open, []
            answered = [stream for stream in streams if not stream.waiting]
        for stream in streams:
            stream.messages.put(None)
        for stream in answered:
            stream.ended.wait(_CLOSING_S)

    def _read(self, stream: "_OpenStream") -> None:
        failure = RequestFailed("DATA_LOSS", "the stream ended before every message was answered")
        latest = CallTimes()
        messages = _until_none(stream.messages)
        try:
            for data in self._connection.infer_stream(messages, times=latest):
                now_ns = time.perf_counter_ns()
                received_ns = time.monotonic_ns()
                text, response = decode_stream_response(data)
                decoded_ns = time.monotonic_ns()
                with self._lock:
                    done, times = stream.waiting.pop(response.id, (None, None))
                if done is not None and times is not None:
                    times.call.answer_began_ns = latest.answer_began_ns
                    times.call.server = latest.server
                    times.received_ns, times.decode_ns = received_ns, decoded_ns - received_ns
                    times.answer_bytes = len(data)
                    done(RequestFailed("UNKNOWN", text) if text else response, now_ns, times)
        except RequestFailed as error:
            failure = error
        except ValueError as error:
            failure = RequestFailed("DATA_LOSS", str(error))
        now_ns = time.perf_counter_ns()
        with self._lock:
            if stream in self._open:
                self._open.remove(stream)
        # No more requests are added from here on.
        stream.messages.put(None)
        again = _policy(self._connection)
        if not isinstance(failure, Unavailable | Interrupted):
            again = ONCE
        left: list[tuple[int, Done, RequestTimes]] = []
        for text, (done, times) in stream.waiting.items():
            times.call.server = latest.server
            if len(times.call.lost) + 1 < again.attempts:
                times.call.lost += (latest.server,)
                left.append((int(text), done, times))
            else:
                done(failure, now_ns, times)
        if left:
            attempts = max(len(times.call.lost) for _, _, times in left)
            time.sleep(again.pause_s(attempts, None) or 0.0)
        for number, done, times in left:
            self._queue(number, done, times)
        stream.ended.set()


class _OpenStream:
    """The requests in flight on one stream."""

    def __init__(self) -> None:
        self.messages: SimpleQueue[tuple[Pieces, CallTimes] | None] = SimpleQueue()
        self.waiting: dict[str, tuple[Done, RequestTimes]] = {}
        self.ended = threading.Event()


def _policy(connection: Connection) -> RetryPolicy:
    return _AGAIN if len(connection.servers) > 1 else ONCE


def requests_of(
    model: str,
    version: str,
    tensors: Sequence[Tensor],
    output: str | None,
    parameters: Mapping[str, Parameter],
) -> list[InferRequest]:
    """Make a request for each tensor; `output` None: for all outputs."""
    wanted = () if output is None else (RequestedOutput(output),)
    return [
        InferRequest(model, (tensor,), wanted, version, parameters=dict(parameters))
        for tensor in tensors
    ]


def decoded(outcome: Outcome) -> InferResponse | RequestFailed:
    """Decode an outcome; a malformed answer becomes a failure."""
    if not isinstance(outcome, memoryview):
        return outcome
    try:
        return decode_response(outcome)
    except ValueError as error:
        return RequestFailed("DATA_LOSS", f"the answer is malformed: {error}")


def _until_none(messages: "SimpleQueue[tuple[Pieces, CallTimes] | None]") -> Iterator[Pieces]:
    while (entry := messages.get()) is not None:
        message, times = entry
        yield message
        # The stream asks for the next one when the kernel has this one.
        times.sent(time.monotonic_ns())
