"""Send batches as small messages on one stream, and put their answers together again."""

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from client.connection import Connection
from client.errors import ClientError, RequestFailed
from protos.codec import InferResponse, decode_stream_response

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class BatchAnswer:
    """Answers to one batch, in the order of its rows, a message each.

    `first_ns` and `done_ns` are when the first and the last one came (time.perf_counter_ns).
    """

    responses: Sequence[InferResponse]
    first_ns: int
    done_ns: int


def stream_batches(
    connection: Connection,
    batches: Iterable[Array],
    encode: Callable[[Array, str, bool], bytes],
    message_rows: int,
    deadline_s: float | None = None,
) -> Iterator[BatchAnswer]:
    """Answers to `batches`, in order, while later batches are being sent.

    `batches` is drawn from another thread, no faster than the server takes messages. `encode`
    makes a message of some rows, its id, and whether more rows of the same batch follow. Raises
    RequestFailed for an error of the server, and whatever `batches` or `encode` raise.
    """
    expected: deque[int] = deque()
    failure: list[Exception] = []
    ids = itertools.count()

    def messages() -> Iterator[bytes]:
        try:
            for batch in batches:
                starts = range(0, len(batch), message_rows)
                if not starts:
                    raise ClientError("a batch without rows cannot be predicted")
                expected.append(len(starts))
                for start in starts:
                    stop = start + message_rows
                    yield encode(batch[start:stop], str(next(ids)), stop < len(batch))
        except Exception as error:  # gRPC would log it and answer UNKNOWN
            failure.append(error)

    responses: list[InferResponse] = []
    first_ns = 0
    for answered, data in enumerate(connection.infer_stream(messages(), deadline_s)):
        now_ns = time.perf_counter_ns()
        text, response = decode_stream_response(data)
        if text:
            raise RequestFailed("UNKNOWN", text)
        if response.id != str(answered):
            raise RequestFailed(
                "DATA_LOSS", f"answer to message {response.id} came for message {answered}"
            )
        if not responses:
            first_ns = now_ns
        responses.append(response)
        if len(responses) == expected[0]:
            yield BatchAnswer(tuple(responses), first_ns, now_ns)
            expected.popleft()
            responses = []
    if failure:
        raise failure[0]
    if responses or expected:
        raise RequestFailed("DATA_LOSS", "the stream ended before every message was answered")
