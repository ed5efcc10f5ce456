"""The answers of one stream, with errors in terms of the caller."""

from collections.abc import Callable, Iterator

from client.connection.call_times import CallTimes
from client.connection.waiting import Exchange
from client.errors import RequestFailed
from protos.codec import Pieces
from transport.calling.client_call import CallFailed
from transport.status import Status


class InferStream:
    """A series of encoded ModelStreamInferResponses; `failure` makes the error of a status."""

    def __init__(
        self,
        exchange: Exchange,
        failure: Callable[[Status], RequestFailed],
        times: CallTimes | None,
    ) -> None:
        self._exchange = exchange
        self._failure = failure
        self._times = times

    async def next(self) -> memoryview | None:
        """The next answer; None at the end. RequestFailed if the stream failed."""
        try:
            answer = await self._exchange.next()
        except CallFailed as error:
            self._note()
            raise self._failure(error.status) from None
        self._note()
        return answer

    def _note(self) -> None:
        if self._times is not None:
            self._times.answer_began_ns = self._exchange.answer_began_ns
            self._times.server = self._exchange.server

    @property
    def server(self) -> str:
        """See Exchange."""
        return self._exchange.server

    @property
    def sending(self) -> bool:
        """See Exchange."""
        return self._exchange.sending

    def cancel(self) -> None:
        """See Exchange."""
        self._exchange.cancel()

    async def close(self) -> None:
        """See Exchange."""
        await self._exchange.close()


class Iterated:
    """The values of an iterator as a series, whose coroutines are never suspended."""

    def __init__(self, values: Iterator[Pieces]) -> None:
        self._values = values

    async def next(self) -> Pieces | None:
        """The next value; None at the end."""
        return next(self._values, None)
