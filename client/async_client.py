"""Predict with a served model, from an asyncio program."""

import contextlib
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from functools import partial
from types import TracebackType
from typing import Any, Self, Unpack

from numpy.typing import NDArray

from client.arrays import Rows
from client.batch import Batch
from client.batch_stream import BatchAnswer
from client.calls.model_calls import ModelCalls
from client.calls.model_stream import ModelStream, joined
from client.connection.call_options import CallOptions
from client.connection.channel import RetryPolicy
from client.connection.credentials import Credentials
from client.connection.event_loop import EventLoop
from client.model_input import ModelInput
from client.shared_memory import SharedArray
from transport.calling.resolving import Resolving
from transport.calling.servers import Policy

Batches = Iterable[Rows | Mapping[str, Rows]] | AsyncIterable[Rows | Mapping[str, Rows]]


class AsyncClient(ModelCalls):
    """As Client, with the same methods as coroutines, for one event loop.

    Any number of calls may be under way at a time; none of them takes a thread. A task that is
    cancelled cancels its call. Rows that are not sent as they are, of another dtype or memory
    order, are converted in the event loop, which they keep busy meanwhile. Names are looked up by a
    thread.
    """

    def __init__(
        self,
        address: str | Sequence[str],
        model: str = "linear_argmax",
        version: str = "",
        *,
        deadline_s: float | None = None,
        retry: RetryPolicy | None = None,
        hedge_after_s: float | None = None,
        keepalive_s: float | None = None,
        balance: Policy = "least_requests",
        resolving: Resolving | None = None,
        credentials: Credentials | None = None,
        output: str | None = None,
        takes: ModelInput | None = None,
    ) -> None:
        super().__init__(
            EventLoop(),
            address,
            model,
            version,
            deadline_s=deadline_s,
            retry=retry,
            hedge_after_s=hedge_after_s,
            keepalive_s=keepalive_s,
            balance=balance,
            resolving=resolving,
            credentials=credentials,
            output=output,
            takes=takes,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; calls under way are cancelled."""
        self.connection.close()

    async def stream(
        self, batches: Batches, *, stable: bool = False, **options: Unpack[CallOptions]
    ) -> AsyncGenerator[NDArray[Any], None]:
        """See Client; `batches` may also be asynchronous. A task of the event loop draws them."""
        async with self._opened(batches, options, timings=False, stable=stable) as stream:
            while (answer := await stream.next()) is not None:
                yield joined(answer.responses, stream.output)

    async def stream_answers(
        self,
        batches: Batches,
        *,
        timings: bool = False,
        stable: bool = False,
        **options: Unpack[CallOptions],
    ) -> AsyncGenerator[BatchAnswer, None]:
        """See Client."""
        async with self._opened(batches, options, timings=timings, stable=stable) as stream:
            while (answer := await stream.next()) is not None:
                yield answer

    @contextlib.asynccontextmanager
    async def _opened(
        self, batches: Batches, options: CallOptions, *, timings: bool, stable: bool
    ) -> AsyncIterator[ModelStream]:
        stable = stable or isinstance(batches, list | tuple)
        draw = partial(_Drawn, _iterator(batches))
        stream = await self.open_stream(draw, options, timings=timings, stable=stable)
        try:
            yield stream
        finally:
            await stream.close()

    @contextlib.asynccontextmanager
    async def shared(self, x: Rows, **options: Unpack[CallOptions]) -> AsyncIterator[SharedArray]:
        """See Client."""
        copy = await self.share(x, options)
        try:
            yield copy
        finally:
            await self.release(copy, options)


class _Drawn:
    """Batches of an asynchronous iterator, as a Series."""

    def __init__(
        self,
        batches: AsyncIterator[Rows | Mapping[str, Rows]],
        batch_of: Callable[[Rows | Mapping[str, Rows]], Awaitable[Batch]],
    ) -> None:
        self._batches = batches
        self._batch_of = batch_of

    async def next(self) -> Batch | None:
        async for x in self._batches:
            return await self._batch_of(x)
        return None


def _iterator(batches: Batches) -> AsyncIterator[Rows | Mapping[str, Rows]]:
    return aiter(batches) if isinstance(batches, AsyncIterable) else _Iterated(iter(batches))


class _Iterated:
    """An iterator as an asynchronous one."""

    def __init__(self, values: Iterator[Rows | Mapping[str, Rows]]) -> None:
        self._values = values

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Rows | Mapping[str, Rows]:
        for value in self._values:
            return value
        raise StopAsyncIteration
