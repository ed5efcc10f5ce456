"""Send requests without waiting for their answers."""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from queue import SimpleQueue
from typing import Protocol

from client.connection.calls import Connection
from client.errors import RequestFailed
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

# An answer, decoded or not yet, or why there is none.
Outcome = memoryview | InferResponse | RequestFailed


class Done(Protocol):
    """What is called with an outcome."""

    def __call__(self, outcome: Outcome, done_ns: int, receive_ns: int = 0) -> None:
        """Take it: it came at `done_ns` (time.perf_counter_ns), decoding it took `receive_ns`."""


_CLOSING_S = 5.0


class Sender(Protocol):
    """One way to send; `done` is called in another thread, once for each request."""

    def send(self, number: int, done: Done) -> None:
        """Send request `number`; which rows it carries repeats after a while."""

    def close(self) -> None:
        """Let go of what is open; requests under way fail."""


class UnarySender:
    """Sends each request as a ModelInfer of its own; all share a connection."""

    def __init__(
        self, connection: Connection, requests: Sequence[InferRequest], timeout_s: float
    ) -> None:
        self._connection = connection
        # Encoded once, so that a request costs the sender as little as can be.
        self._messages = [request_pieces(request) for request in requests]
        self._timeout_s = timeout_s

    def send(self, number: int, done: Done) -> None:
        """Begin a call."""

        message = self._messages[number % len(self._messages)]
        self._connection.infer_later(
            message, self._timeout_s, lambda outcome: done(outcome, time.perf_counter_ns())
        )

    def close(self) -> None:
        """Nothing but the connection is open."""


class StreamSender:
    """Sends all requests on one stream or on several, and opens another when one breaks.

    An error ends a stream with its status, which becomes that of every request under way on it. Of
    several streams, a request goes to the one with the fewest under way.
    """

    def __init__(
        self, connection: Connection, requests: Sequence[InferRequest], streams: int = 1
    ) -> None:
        self._connection = connection
        self._requests = requests
        self._streams = streams
        self._lock = threading.Lock()
        self._open: list[_OpenStream] = []

    def send(self, number: int, done: Done) -> None:
        """Queue a message; the server's flow control says when it leaves."""
        request = self._requests[number % len(self._requests)]
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
                self._open.append(_OpenStream())
                threading.Thread(target=self._read, args=(self._open[-1],), daemon=True).start()
                stream = self._open[-1]
            else:
                stream = min(self._open, key=lambda one: len(one.waiting))
            stream.waiting[str(number)] = done
            stream.messages.put(message)

    def close(self) -> None:
        """End the streams; what has no answer by now is not waited for."""
        with self._lock:
            streams, self._open = self._open, []
            answered = [stream for stream in streams if not stream.waiting]
        for stream in streams:
            stream.messages.put(None)
        for stream in answered:
            stream.ended.wait(_CLOSING_S)

    def _read(self, stream: "_OpenStream") -> None:
        failure = RequestFailed("DATA_LOSS", "the stream ended before every message was answered")
        try:
            for data in self._connection.infer_stream(_until_none(stream.messages)):
                now_ns = time.perf_counter_ns()
                text, response = decode_stream_response(data)
                receive_ns = time.perf_counter_ns() - now_ns
                with self._lock:
                    done = stream.waiting.pop(response.id, None)
                if done is not None:
                    done(RequestFailed("UNKNOWN", text) if text else response, now_ns, receive_ns)
        except RequestFailed as error:
            failure = error
        except ValueError as error:
            failure = RequestFailed("DATA_LOSS", str(error))
        now_ns = time.perf_counter_ns()
        with self._lock:
            if stream in self._open:
                self._open.remove(stream)
        # From here on nobody adds to what waits.
        stream.messages.put(None)
        for done in stream.waiting.values():
            done(failure, now_ns)
        stream.ended.set()


class _OpenStream:
    """What is on its way on one stream."""

    def __init__(self) -> None:
        self.messages: SimpleQueue[Pieces | None] = SimpleQueue()
        self.waiting: dict[str, Done] = {}
        self.ended = threading.Event()


def requests_of(
    model: str,
    version: str,
    tensors: Sequence[Tensor],
    output: str | None,
    parameters: Mapping[str, Parameter],
) -> list[InferRequest]:
    """A request for each tensor; `output` None: for all outputs."""
    wanted = () if output is None else (RequestedOutput(output),)
    return [
        InferRequest(model, (tensor,), wanted, version, parameters=dict(parameters))
        for tensor in tensors
    ]


def decoded(outcome: Outcome) -> InferResponse | RequestFailed:
    """Answer of an outcome; a malformed one is a failure."""
    if not isinstance(outcome, memoryview):
        return outcome
    try:
        return decode_response(outcome)
    except ValueError as error:
        return RequestFailed("DATA_LOSS", f"the answer is malformed: {error}")


def _until_none(messages: "SimpleQueue[Pieces | None]") -> Iterator[Pieces]:
    while (message := messages.get()) is not None:
        yield message
