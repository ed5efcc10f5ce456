"""Send LoadGen's queries without blocking it."""

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Protocol

from numpy.typing import NDArray

from client.client import Client
from client.errors import RequestFailed
from measure.core.verification import one_a_row


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples that are sent together: LoadGen's ids, and the examples' indices."""

    ids: Sequence[int]
    indices: Sequence[int]


# Returns rows of examples by index.
Rows = Callable[[Sequence[int]], NDArray[Any]]
# Called with a batch and its labels, int64 [n], in another thread.
Done = Callable[[Batch, NDArray[Any]], None]
# Called with the error that ended the sending, in another thread.
Failed = Callable[[Exception], None]


class Sender(Protocol):
    """A way to send batches."""

    def send(self, batch: Batch) -> None:
        """Send a batch asynchronously; return at once."""

    def close(self) -> None:
        """Wait for requests in flight, then close."""


class StreamSender:
    """Sends every batch on one open stream, split into messages of a few MiB."""

    def __init__(self, client: Client, rows: Rows, done: Done, failed: Failed) -> None:
        self._client = client
        self._rows = rows
        self._done = done
        self._failed = failed
        self._waiting: SimpleQueue[Batch | None] = SimpleQueue()
        # Answers arrive in the order of the batches.
        self._sent: deque[Batch] = deque()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def send(self, batch: Batch) -> None:
        """Queue a batch; the server's flow control decides when it is sent."""
        self._waiting.put(batch)

    def close(self) -> None:
        """End the stream after its last answer."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            for labels in self._client.stream(self._drawn()):
                batch = self._sent.popleft()
                self._done(batch, _checked(labels, batch))
        except Exception as error:  # otherwise lost in this thread
            self._failed(error)

    def _drawn(self) -> Iterator[NDArray[Any]]:
        while (batch := self._waiting.get()) is not None:
            self._sent.append(batch)
            yield self._rows(batch.indices)


class InTurn:
    """Sends batches by several senders, each in turn: a stream stays with its server."""

    def __init__(self, senders: Sequence[Sender]) -> None:
        self._senders = senders
        self._turns = itertools.cycle(senders)

    def send(self, batch: Batch) -> None:
        """Have the next sender send it."""
        next(self._turns).send(batch)

    def close(self) -> None:
        """Close all of them, one after the other."""
        for sender in self._senders:
            sender.close()


class UnarySender:
    """Sends each batch as a ModelInfer call, at most `in_flight` at once."""

    def __init__(
        self, client: Client, rows: Rows, done: Done, failed: Failed, in_flight: int
    ) -> None:
        self._client = client
        self._rows = rows
        self._done = done
        self._failed = failed
        self._pool = ThreadPoolExecutor(in_flight)

    def send(self, batch: Batch) -> None:
        """Hand the batch to a thread; if none is free it waits, and the waiting counts."""
        self._pool.submit(self._run, batch)

    def close(self) -> None:
        """Wait for the last answer."""
        self._pool.shutdown()

    def _run(self, batch: Batch) -> None:
        try:
            labels = self._client.predict_in_one_request(self._rows(batch.indices))
            self._done(batch, _checked(labels, batch))
        except Exception as error:  # otherwise lost in this thread
            self._failed(error)


def _checked(labels: NDArray[Any], batch: Batch) -> NDArray[Any]:
    """Labels as LoadGen logs them, contiguous int64; RequestFailed unless one per row."""
    found = one_a_row(labels)
    if len(found) != len(batch.ids):
        raise RequestFailed("DATA_LOSS", f"got {len(found)} labels, expected {len(batch.ids)}")
    return found
