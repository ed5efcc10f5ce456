"""Wait by blocking the thread."""

import queue
import threading
import time
from contextlib import AbstractAsyncContextManager, nullcontext
from types import TracebackType

from client.connection.waiting import EndedCalls, Exchange, Series, Turns, each
from protos.codec import Pieces
from transport.calling.callables import CallMetadata, StreamStream
from transport.calling.client_call import ClientCall


class Blocking:
    """See Waiting."""

    async def sleep(self, seconds: float) -> None:
        """See Waiting."""
        time.sleep(seconds)

    async def until_ended(self, call: ClientCall) -> None:
        """See Waiting."""
        try:
            call.status()
        except BaseException:  # KeyboardInterrupt: nobody waits any more
            call.cancel()
            raise

    def ended_calls(self) -> EndedCalls:
        """See Waiting."""
        return _EndedCalls()

    def lock(self) -> AbstractAsyncContextManager[None]:
        """See Waiting."""
        return _Lock()

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
        """See Waiting; a thread of the transport sends, as the series may block."""
        return _Exchange(method(each(messages), timeout_s, metadata))


class _EndedCalls:
    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[ClientCall] = queue.SimpleQueue()
        self.put = self._queue.put

    async def get(self, timeout_s: float | None) -> ClientCall | None:
        try:
            return self._queue.get(timeout=timeout_s)
        except queue.Empty:
            return None


class _Turns:
    def within(self, timeout_s: float | None) -> AbstractAsyncContextManager[None]:
        return nullcontext()


class _Lock:
    def __init__(self) -> None:
        self._lock = threading.Lock()

    async def __aenter__(self) -> None:
        self._lock.acquire()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.release()


class _Exchange:
    def __init__(self, call: ClientCall) -> None:
        self._call = call

    @property
    def answer_began_ns(self) -> int:
        return self._call.answer_began_ns

    @property
    def server(self) -> str:
        return self._call.server

    async def next(self) -> memoryview | None:
        answer: memoryview | None = next(self._call, None)
        return answer

    @property
    def sending(self) -> bool:
        return False

    def cancel(self) -> None:
        self._call.cancel()

    async def close(self) -> None:
        # A thread that waits for the caller's iterator ends after the iterator's next value.
        self._call.cancel()
