"""Send batches as small messages on a stream, and join their answers."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from client.batch import Batch
from client.connection.calls import Connection
from client.errors import RequestFailed, Unavailable
from client.message_size import MessageLimit
from client.unanswered import Encode, Unanswered
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
    encode: Encode,
    limit: MessageLimit,
    deadline_s: float | None = None,
    *,
    stable: bool = False,
) -> Iterator[BatchAnswer]:
    """Answers to `batches`, in order, while later batches are being sent.

    Another thread reads `batches`, no faster than the server takes messages. `encode` makes a
    message from rows of a batch, its id, and whether more rows follow. `stable`: the arrays of
    batches stay as they are until they are answered; otherwise until the next batch is drawn. If
    the stream breaks because the server is unavailable, messages without an answer are sent again
    on a new stream, by the connection's retry policy. Raises RequestFailed for an error of the
    server, UsageError for a batch without rows, and the errors of `batches` and `encode`.
    """
    messages = Unanswered(batches, encode, limit, stable=stable)
    responses: list[InferResponse] = []
    first_ns = 0
    for answered, (data, last) in enumerate(_answers(connection, messages, deadline_s)):
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
        if last:
            yield BatchAnswer(tuple(responses), first_ns, now_ns)
            responses = []
    if messages.failure is not None:
        raise messages.failure
    if not messages.complete:
        raise RequestFailed("DATA_LOSS", "the stream ended before every message was answered")


def _answers(
    connection: Connection, messages: Unanswered, deadline_s: float | None
) -> Iterator[tuple[memoryview, bool]]:
    """Answers to all messages, over as many streams as needed, and which end their batches."""
    end_s = None if deadline_s is None else time.monotonic() + deadline_s
    failures = 0
    while True:
        left_s = None if end_s is None else end_s - time.monotonic()
        try:
            for data in connection.infer_stream(messages.messages(), left_s):
                last = messages.answer()
                failures = 0
                yield data, last
            return
        except Unavailable:
            failures += 1
            if not connection.retry.wait(failures, end_s):
                raise
