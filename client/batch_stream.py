"""Send batches as small messages on a stream, and join their answers."""

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from client.batch import Batch, MessageLimit
from client.connection.calls import Connection
from client.errors import RequestFailed, Unavailable, UsageError
from protos.codec import InferResponse, decode_stream_response


@dataclass(frozen=True, slots=True)
class BatchAnswer:
    """Answers to one batch, in the order of its rows, one per message.

    `first_ns` and `done_ns` are when the first and the last one arrived (time.perf_counter_ns).
    """

    responses: Sequence[InferResponse]
    first_ns: int
    done_ns: int


def stream_batches(
    connection: Connection,
    batches: Iterable[Batch],
    encode: Callable[[Batch, slice, str, bool], bytes],
    limit: MessageLimit,
    deadline_s: float | None = None,
) -> Iterator[BatchAnswer]:
    """Answers to `batches`, in order, while later batches are being sent.

    Another thread reads `batches`, no faster than the server takes messages. `encode` makes a
    message from rows of a batch, its id, and whether more rows follow. If the stream breaks because
    the server is unavailable, messages without an answer are sent again on a new stream, by the
    connection's retry policy. Raises RequestFailed for an error of the server, UsageError for a
    batch without rows, and the errors of `batches` and `encode`.
    """
    expected: deque[int] = deque()
    messages = _Messages(_encoded(batches, encode, limit, expected))
    responses: list[InferResponse] = []
    first_ns = 0
    for answered, data in enumerate(_answers(connection, messages, deadline_s)):
        now_ns = time.perf_counter_ns()
        text, response = decode_stream_response(data)
        if text:
            raise RequestFailed("UNKNOWN", text)
        if response.id != str(answered):
            raise RequestFailed(
                "DATA_LOSS",
                f"got the answer to message {response.id}, expected that to message {answered}",
            )
        if not responses:
            first_ns = now_ns
        responses.append(response)
        if len(responses) == expected[0]:
            yield BatchAnswer(tuple(responses), first_ns, now_ns)
            expected.popleft()
            responses = []
    if messages.failure is not None:
        raise messages.failure
    if responses or expected:
        raise RequestFailed("DATA_LOSS", "the stream ended before every message was answered")


class _Messages:
    """Numbered messages, each made once and kept until it is answered.

    gRPC reads them in its own thread, and the thread of a broken stream may still run when the next
    stream begins.
    """

    def __init__(self, source: Iterator[bytes]) -> None:
        self._source = source
        self._drawing = threading.Lock()
        # Never held while reading `batches`: answers must not wait for later batches.
        self._lock = threading.Lock()
        self._kept: deque[bytes] = deque()
        self._answered = 0
        self.failure: Exception | None = None

    def unanswered(self) -> Iterator[bytes]:
        """Messages from the first without an answer to the last of all batches."""
        for number in itertools.count(self._answered):
            message = self._kept_message(number)
            if message is None:
                with self._drawing:
                    message = self._kept_message(number) or self._draw()
            if message is None:
                return
            yield message

    def answer(self) -> None:
        """Drop the first message."""
        with self._lock:
            self._kept.popleft()
            self._answered += 1

    def _kept_message(self, number: int) -> bytes | None:
        with self._lock:
            at = number - self._answered
            # The thread of a broken stream may be behind.
            return self._kept[at] if 0 <= at < len(self._kept) else None

    def _draw(self) -> bytes | None:
        try:
            message = next(self._source, None)
        except Exception as error:  # gRPC would log it and answer UNKNOWN
            self.failure = error
            return None
        if message is not None:
            with self._lock:
                self._kept.append(message)
        return message


def _encoded(
    batches: Iterable[Batch],
    encode: Callable[[Batch, slice, str, bool], bytes],
    limit: MessageLimit,
    expected: deque[int],
) -> Iterator[bytes]:
    """Messages of the batches; `expected` gets the number of messages of each batch."""
    ids = itertools.count()
    for number, batch in enumerate(batches):
        parts = batch.parts(limit)
        if not parts:
            raise UsageError(f"batch {number} of the stream has no rows; expected at least one")
        expected.append(len(parts))
        for part in parts:
            yield encode(batch, part, str(next(ids)), part is not parts[-1])


def _answers(
    connection: Connection, messages: _Messages, deadline_s: float | None
) -> Iterator[bytes]:
    """Answers to all messages, over as many streams as needed."""
    end_s = None if deadline_s is None else time.monotonic() + deadline_s
    failures = 0
    while True:
        left_s = None if end_s is None else end_s - time.monotonic()
        try:
            for data in connection.infer_stream(messages.unanswered(), left_s):
                messages.answer()
                failures = 0
                yield data
            return
        except Unavailable:
            failures += 1
            if not connection.retry.wait(failures, end_s):
                raise
