"""Send batches as small messages on a stream, and join their answers."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from client.batch import Batch
from client.connection.call_options import CallSettings, left_s
from client.connection.calls import Connection
from client.connection.infer_stream import InferStream
from client.connection.waiting import Series
from client.errors import Interrupted, RequestFailed, Unavailable
from client.message_size import MessageLimit
from client.unanswered import Encode, Unanswered
from protos.codec import InferResponse, decode_stream_response


@dataclass(frozen=True, slots=True)
class BatchAnswer:
    """Answers to one batch, in the order of its rows, one per message.

    `first_ns` and `done_ns` are when the first and the last one arrived (time.perf_counter_ns).
    `server` is the address of the server that gave the last one.
    """

    responses: Sequence[InferResponse]
    first_ns: int
    done_ns: int
    server: str = ""


class BatchStream:
    """Answers to `batches`, in order, while later batches are being sent: a Series.

    `batches` are asked for elsewhere, by a thread or a task of the stream, no faster than the
    server takes messages. `encode` makes a message from rows of a batch, its id, and whether more
    rows follow. `stable`: the arrays of batches stay as they are until they are answered; otherwise
    until the next batch is drawn. If the stream breaks because the server is unavailable, or is
    cut, messages without an answer are sent again on a new stream, as often as `settings` say.
    """

    def __init__(
        self,
        connection: Connection,
        batches: Series[Batch],
        encode: Encode,
        limit: MessageLimit,
        settings: CallSettings,
        *,
        stable: bool = False,
    ) -> None:
        self._messages = Unanswered(batches, encode, limit, connection.waiting, stable=stable)
        self._answers = _Answers(connection, self._messages, settings)
        self._answered = 0

    async def next(self) -> BatchAnswer | None:
        """The answer to the next batch; None at the end.

        Raises RequestFailed for an error of the server, UsageError for a batch without rows, and
        the errors of `batches` and `encode`.
        """
        responses: list[InferResponse] = []
        first_ns = 0
        while (answer := await self._answers.next()) is not None:
            data, last = answer
            now_ns = time.perf_counter_ns()
            responses.append(self._response(data))
            first_ns = first_ns or now_ns
            if last:
                return BatchAnswer(tuple(responses), first_ns, now_ns, self._answers.server)
        if self._messages.failure is not None:
            raise self._messages.failure
        if not self._messages.complete:
            raise RequestFailed("DATA_LOSS", "the stream ended before every message was answered")
        return None

    async def close(self) -> None:
        """End the stream, wherever it stands."""
        await self._answers.close()

    def _response(self, data: memoryview) -> InferResponse:
        text, response = decode_stream_response(data)
        if text:
            raise RequestFailed("UNKNOWN", text)
        if response.id != str(self._answered):
            raise RequestFailed(
                "DATA_LOSS",
                f"got the answer to message {response.id}, expected that to message "
                f"{self._answered}",
            )
        self._answered += 1
        return response


class _Answers:
    """Answers to all messages, over as many streams as needed, and which end their batches."""

    def __init__(
        self, connection: Connection, messages: Unanswered, settings: CallSettings
    ) -> None:
        self._connection = connection
        self._messages = messages
        self._settings = settings
        self._end_s: float | None = None
        self._failures = 0
        # The last one is in use. A broken one may still be drawing the next message.
        self._streams: list[InferStream] = []

    async def next(self) -> tuple[memoryview, bool] | None:
        if not self._streams:
            self._end_s = self._settings.ends_s()
            self._begin()
        while True:
            try:
                answer = await self._streams[-1].next()
            except (Unavailable, Interrupted):
                self._streams[-1].cancel()
                self._failures += 1
                pause_s = self._settings.retry.pause_s(self._failures, self._end_s)
                if pause_s is None:
                    raise
                await self._connection.waiting.sleep(pause_s)
                self._begin()
                continue
            if answer is None:
                return None
            self._failures = 0
            return answer, self._messages.answer()

    @property
    def server(self) -> str:
        """The address of the server that the stream in use goes to."""
        return self._streams[-1].server if self._streams else ""

    def _begin(self) -> None:
        self._streams = [stream for stream in self._streams if stream.sending]
        self._streams.append(
            self._connection.open_stream(
                self._messages.messages(), left_s(self._end_s), self._settings
            )
        )

    async def close(self) -> None:
        for stream in self._streams:
            await stream.close()
