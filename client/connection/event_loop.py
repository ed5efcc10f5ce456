"""Wait as a task of an asyncio event loop, without a thread per call.

Calls end in the transport's I/O thread, which hands over to the loop. A task that is cancelled
cancels the call that it waits for.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from client.connection.waiting import EndedCalls, Exchange, Series, Turns
from client.errors import DeadlineExceeded
from protos.codec import Pieces
from transport.calling.callables import CallMetadata, StreamStream
from transport.calling.client_call import CallFailed, ClientCall
from transport.status import Code


class EventLoop:
    """See Waiting; used from one event loop."""

    async def sleep(self, seconds: float) -> None:
        """See Waiting."""
        await asyncio.sleep(seconds)

    async def until_ended(self, call: ClientCall) -> None:
        """See Waiting."""
        loop = asyncio.get_running_loop()
        ended = loop.create_future()
        call.add_done_callback(lambda _: _soon(loop, _resolve, ended))
        try:
            await ended
        finally:
            call.cancel()

    def ended_calls(self) -> EndedCalls:
        """See Waiting."""
        return _EndedCalls()

    def lock(self) -> AbstractAsyncContextManager[None]:
        """See Waiting."""
        return asyncio.Lock()

    def turns(self) -> Turns:
        """See Waiting."""
        return _Turns()

    def exchange(
        self,
        method: StreamStream,
        messages: Series[Pieces],
        timeout_s: float | None,
        metadata: CallMetadata,
    ) -> Exchange:
        """See Waiting; a task sends."""
        return _Exchange(method(None, timeout_s, metadata), messages)


class _EndedCalls:
    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[ClientCall] = asyncio.Queue()

    def put(self, call: ClientCall) -> None:
        _soon(self._loop, self._queue.put_nowait, call)

    async def get(self, timeout_s: float | None) -> ClientCall | None:
        try:
            async with asyncio.timeout(timeout_s):
                return await self._queue.get()
        except TimeoutError:
            return None


class _Turns:
    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def within(self, timeout_s: float | None) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(timeout_s):
                await self._lock.acquire()
        except TimeoutError:
            raise DeadlineExceeded(
                "DEADLINE_EXCEEDED", "another task of this client waits for the server"
            ) from None
        try:
            yield
        finally:
            self._lock.release()


class _Exchange:
    def __init__(self, call: ClientCall, messages: Series[Pieces]) -> None:
        self._call = call
        self._loop = asyncio.get_running_loop()
        # Set when a message was sent or has arrived, and at the end of the call.
        self._sent, self._arrived = asyncio.Event(), asyncio.Event()
        call.listen(lambda: _soon(self._loop, self._arrived.set))
        call.add_done_callback(lambda _: _soon(self._loop, self._ended))
        self._sender = self._loop.create_task(self._send(messages))

    @property
    def answer_began_ns(self) -> int:
        return self._call.answer_began_ns

    @property
    def server(self) -> str:
        return self._call.server

    async def next(self) -> memoryview | None:
        while True:
            self._arrived.clear()
            # In this order: what arrived before the end is taken first.
            ended = self._call.done()
            answer: memoryview | None = self._call.take()
            if answer is not None:
                return answer
            if ended:
                status = self._call.status()
                if status.code is Code.OK:
                    return None
                raise CallFailed(self._call, status)
            await self._arrived.wait()

    @property
    def sending(self) -> bool:
        return not self._sender.done()

    def cancel(self) -> None:
        self._call.cancel()

    async def close(self) -> None:
        self._call.cancel()
        self._sender.cancel()
        await asyncio.wait([self._sender])

    async def _send(self, messages: Series[Pieces]) -> None:
        try:
            while not self._call.done() and (pieces := await messages.next()) is not None:
                self._sent.clear()
                self._call.send_soon(pieces, lambda _: _soon(self._loop, self._sent.set))
                if not self._call.done():
                    await self._sent.wait()
        except BaseException:  # the caller's iterator may be cancelled by others
            self._call.cancel()
            raise
        self._call.half_close()

    def _ended(self) -> None:
        self._sent.set()
        self._arrived.set()


def _soon(loop: asyncio.AbstractEventLoop, call: Callable[..., object], *arguments: Any) -> None:
    """Call from the loop; any thread. Nothing happens if the loop is closed."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(call, *arguments)


def _resolve(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
