"""Serve one ModelStreamInfer call: read ahead in one thread, answer in order from another.

gRPC's synchronous server reads the next message only when the handler asks for it, so without a
reader thread receiving would stop while the model runs. The bytes read ahead are bounded, which
slows down a sender that is faster than the model.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from protos.codec import encode_stream_error, encode_stream_response
from server.batching.byte_budget import ByteBudget
from server.batching.outcome import Outcome
from server.batching.request import Caller, Result
from server.errors import ServerStopping, StreamIdle
from server.rpc import status
from server.rpc.accounting.pending import Pending
from server.rpc.accounting.request_ends import STREAM_METHOD
from server.rpc.inference import Inference


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class _Refused:
    request_id: str
    error: Exception


class _Mark:
    """An event, other than a message, that the answering side handles in order."""


_END: Final = _Mark()
_STOPPING: Final = _Mark()


class _Cancellation:
    """Whether the client is still connected, and the callback for when it leaves.

    Requests refer to this object and not to their stream, which refers to them: a cycle would keep
    the call, and all that gRPC holds for it, until the garbage collector runs.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wake: Callable[[], object] = _nothing
        self.gone = False

    def on_cancel(self, wake: Callable[[], object]) -> bool:
        """Set the callback; False if the client has left already."""
        # Only the reader waits, for one thing at a time.
        with self._lock:
            self._wake = wake
            return not self.gone

    def leave(self) -> None:
        """The client is gone."""
        with self._lock:
            self.gone = True
            wake = self._wake
        wake()


class InferStream:
    """One open stream."""

    def __init__(
        self,
        messages: Iterator[bytes],
        inference: Inference,
        *,
        client: str,
        metadata: Sequence[tuple[str, str | bytes]],
        deadline_ns: int | None,
        read_ahead_bytes: int,
        idle_s: float,
        errors_end_it: bool,
    ) -> None:
        """`errors_end_it`: raise a request's error instead of answering with it."""
        self._messages = messages
        self._inference = inference
        self._cancellation = _Cancellation()
        self._caller = Caller(
            client, deadline_ns, self._cancellation.on_cancel, STREAM_METHOD, metadata
        )
        self._read_ahead_bytes = read_ahead_bytes
        self._window = ByteBudget(read_ahead_bytes)
        self._idle_s = idle_s or None
        self._errors_end_it = errors_end_it
        self._entries: queue.SimpleQueue[Pending | _Refused | _Mark] = queue.SimpleQueue()
        self._open: dict[Outcome[Result], Pending] = {}
        self._lock = threading.Lock()

    def answers(self) -> Iterator[bytes]:
        """Encoded answers, one a message, in the order of the messages.

        Raises StreamIdle, ServerStopping, and with `errors_end_it` any request's error.
        """
        threading.Thread(target=self._read, name="stream-reader", daemon=True).start()
        try:
            while (entry := self._next()) is not _END:
                if entry is _STOPPING:
                    raise ServerStopping("the server is stopping")
                if isinstance(entry, _Refused):
                    yield self._refusal(entry.request_id, entry.error)
                elif isinstance(entry, Pending):
                    yield self._answer(entry)
        finally:
            self.abandon()
            self._empty()

    def stop(self) -> None:
        """End the stream once everything read so far is answered."""
        self._entries.put(_STOPPING)

    def abandon(self) -> None:
        """Drop all that waits; the client is gone."""
        self._cancellation.leave()
        with self._lock:
            pending = list(self._open.values())
        for entry in pending:
            entry.cancel()
        self._entries.put(_END)

    def _next(self) -> "Pending | _Refused | _Mark":
        try:
            return self._entries.get(timeout=self._idle_s)
        except queue.Empty:
            raise StreamIdle(f"the stream sent no message for {self._idle_s:g} s") from None

    def _answer(self, pending: Pending) -> bytes:
        try:
            return self._inference.finish(
                pending, encode_stream_response, triton_final_response=True
            ).data
        except Exception as error:
            return self._refusal(pending.id, error)

    def _refusal(self, request_id: str, error: Exception) -> bytes:
        if self._errors_end_it:
            raise error
        return encode_stream_error(request_id, status.of(error)[1])

    def _read(self) -> None:
        flush: Callable[[], None] = _nothing
        # The window waits for the stream itself, whatever the deadline of its requests.
        waiter = Caller(on_cancel=self._cancellation.on_cancel)
        try:
            for data in self._messages:
                # A message larger than the window still passes, alone.
                size = min(len(data), self._read_ahead_bytes)
                self._window.acquire(size, waiter, before_waiting=flush)
                entry = self._begin(data, size)
                if isinstance(entry, Pending):
                    flush = entry.model.flush
                self._entries.put(entry)
                # Else this frame keeps the bytes alive while it waits for the next message.
                del data, entry
                if self._cancellation.gone:
                    self._empty()
                    break
        except Exception as error:
            # The client left. gRPC keeps the error with the call, and its frames hold the call.
            error.__traceback__ = None
        finally:
            self._entries.put(_END)

    def _empty(self) -> None:
        """Drop all results; futures and tracebacks lead from them back to this object."""
        with contextlib.suppress(queue.Empty):
            while True:
                entry = self._entries.get_nowait()
                if isinstance(entry, Pending):
                    self._inference.abandon(entry)

    def _begin(self, data: bytes, size: int) -> Pending | _Refused:
        arrived_ns = time.monotonic_ns()
        request_id = ""
        try:
            message = self._inference.decode(data, arrived_ns, self._caller)
            request_id = message.id
            pending = self._inference.begin(message, arrived_ns, self._caller)
        except Exception as error:
            self._window.release(size)
            return _Refused(getattr(error, "request_id", request_id), error)
        with self._lock:
            self._open[pending.request.future] = pending
        # `abandon` looks at those that are open after it said so.
        if self._cancellation.gone:
            pending.cancel()

        # Outcomes keep what is called when they are done: that must not lead back to them.
        pending.request.released.add_done_callback(lambda _: self._window.release(size))
        pending.request.future.add_done_callback(self._forget)
        return pending

    def _forget(self, answered: Outcome[Result]) -> None:
        with self._lock:
            self._open.pop(answered, None)
