"""What the client's code waits for, apart from how: the code on top serves both kinds of clients.

That code consists of coroutines. On an event loop they are suspended while they wait. With
`Blocking` they block their thread instead and are never suspended, so `run` completes them.
"""

from collections.abc import Coroutine, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar

from protos.codec import Pieces
from transport.calling.callables import CallMetadata, StreamStream
from transport.calling.client_call import ClientCall

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Series(Protocol[T_co]):
    """Values in order, each made when it is asked for."""

    async def next(self) -> T_co | None:
        """The next value; None at the end."""


class EndedCalls(Protocol):
    """Calls in the order in which they end."""

    def put(self, call: ClientCall) -> None:
        """Add a call that has ended; any thread."""

    async def get(self, timeout_s: float | None) -> ClientCall | None:
        """Wait for the next one; None after `timeout_s`."""


class Turns(Protocol):
    """Lets tasks of an event loop into a block one by one, and threads all at once."""

    def within(self, timeout_s: float | None) -> AbstractAsyncContextManager[None]:
        """The block; DeadlineExceeded if others are in it for longer than `timeout_s`."""


class Exchange(Protocol):
    """One streaming call: sends a series of messages while its answers are read."""

    @property
    def answer_began_ns(self) -> int:
        """When the first byte of the last answer was seen, time.monotonic_ns."""

    @property
    def server(self) -> str:
        """The address that the call went to; empty before it has a connection."""

    async def next(self) -> memoryview | None:
        """The next answer; None at the end. CallFailed unless the call ends with OK."""

    @property
    def sending(self) -> bool:
        """Whether a task still sends, which `close` ends."""

    def cancel(self) -> None:
        """End the call; the message that is being made is still made."""

    async def close(self) -> None:
        """End the call and the task that sends."""


class Waiting(Protocol):
    """How a client waits."""

    async def sleep(self, seconds: float) -> None:
        """Wait for so long."""

    async def until_ended(self, call: ClientCall) -> None:
        """Wait for the end of a call, and cancel it if the waiting is interrupted."""

    def ended_calls(self) -> EndedCalls:
        """An empty queue of calls."""

    def lock(self) -> AbstractAsyncContextManager[None]:
        """A lock for a block that waits."""

    def turns(self) -> Turns:
        """Where the tasks of an event loop go one by one."""

    def exchange(
        self,
        method: StreamStream,
        messages: Series[Pieces],
        timeout_s: float | None,
        metadata: CallMetadata,
    ) -> Exchange:
        """Begin a streaming call. A message is asked for when the kernel has the one before."""


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that waits by `Blocking` alone."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    coroutine.close()
    raise RuntimeError("a coroutine of a blocking client was suspended")


def each(series: Series[T]) -> Iterator[T]:
    """The values of a series that waits by `Blocking` alone."""
    while (value := run(series.next())) is not None:
        yield value
