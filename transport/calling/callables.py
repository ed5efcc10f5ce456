"""The four kinds of calls of a channel, called as grpcio's are."""

import contextlib
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from transport.calling.client_call import CallFailed, ClientCall
from transport.http2.frames import Buffer
from transport.http2.outgoing import OnSent
from transport.status import Code, Status

Request = Buffer | Sequence[Buffer]
Serializer = Callable[[Any], Request]
Deserializer = Callable[[memoryview], Any]
CallMetadata = Iterable[tuple[str, str | bytes]]


class CallMaker(Protocol):
    """The channel, as its callables see it."""

    def new_call(
        self,
        path: str,
        deserializer: Deserializer | None,
        timeout: float | None,
        metadata: CallMetadata | None,
        *,
        wait_for_ready: bool | None,
        compression: str | None,
    ) -> ClientCall:
        """A call that is not begun. ValueError: the channel is closed, or bad metadata."""


class _Multi:
    """What the four kinds of calls share."""

    def __init__(
        self,
        channel: CallMaker,
        path: str,
        serializer: Serializer | None,
        deserializer: Deserializer | None,
    ) -> None:
        self._channel = channel
        self._path = path
        self._serializer = serializer
        self._deserializer = deserializer

    def _buffers(self, request: Any) -> Sequence[Buffer]:
        if self._serializer is not None:
            request = self._serializer(request)
        if isinstance(request, bytes | bytearray | memoryview):
            return (request,)
        return list(request)

    def _new_call(
        self,
        timeout: float | None,
        metadata: CallMetadata | None,
        wait_for_ready: bool | None,
        compression: str | None,
    ) -> ClientCall:
        return self._channel.new_call(
            self._path,
            self._deserializer,
            timeout,
            metadata,
            wait_for_ready=wait_for_ready,
            compression=compression,
        )

    def _send_all(self, call: ClientCall, requests: Iterable[Any]) -> None:
        """Send what an iterator gives, from a thread, as it may block.

        The iterator is asked for a message when the kernel has the one before.
        """

        def send() -> None:
            try:
                for request in requests:
                    if not call.send(self._buffers(request)):
                        return
                call.half_close()
            except Exception as error:
                call.end(Status(Code.UNKNOWN, f"Exception iterating requests: {error}"))

        threading.Thread(target=send, name="grpc-requests", daemon=True).start()


class UnaryUnary(_Multi):
    """Calls of one message that are answered by one."""

    def __call__(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: CallMetadata | None = None,
        *,
        wait_for_ready: bool | None = None,
        compression: str | None = None,
    ) -> Any:
        """The answer; CallFailed unless the call ends with OK."""
        return self.with_call(
            request,
            timeout,
            metadata,
            wait_for_ready=wait_for_ready,
            compression=compression,
        )[0]

    def with_call(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: CallMetadata | None = None,
        *,
        wait_for_ready: bool | None = None,
        compression: str | None = None,
        on_sent: OnSent | None = None,
    ) -> tuple[Any, ClientCall]:
        """The answer and its call; see `future`."""
        call = self.future(
            request,
            timeout,
            metadata,
            wait_for_ready=wait_for_ready,
            compression=compression,
            on_sent=on_sent,
        )
        return _result(call), call

    def future(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: CallMetadata | None = None,
        *,
        wait_for_ready: bool | None = None,
        compression: str | None = None,
        on_sent: OnSent | None = None,
    ) -> ClientCall:
        """The call, under way. Its buffers have to stay as they are until it has ended.

        `on_sent` is called when the kernel has the whole request, see OnSent.
        """
        buffers = self._buffers(request)
        call = self._new_call(timeout, metadata, wait_for_ready, compression)
        try:
            call.begin_unary(buffers, on_sent)
        except BaseException:
            # KeyboardInterrupt: it may have begun.
            call.cancel()
            raise
        return call


class UnaryStream(_Multi):
    """Calls of one message that are answered by a stream."""

    def __call__(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: CallMetadata | None = None,
        *,
        wait_for_ready: bool | None = None,
        compression: str | None = None,
    ) -> ClientCall:
        """The call, under way: iterate over it."""
        buffers = self._buffers(request)
        call = self._new_call(timeout, metadata, wait_for_ready, compression)
        call.begin_unary(buffers)
        return call


class StreamStream(_Multi):
    """Calls of a stream that are answered by a stream."""

    def __call__(
        self,
        requests: Iterable[Any] | None,
        timeout: float | None = None,
        metadata: CallMetadata | None = None,
        *,
        wait_for_ready: bool | None = None,
        compression: str | None = None,
    ) -> ClientCall:
        """The call, under way: iterate over it.

        With None as `requests`, `ClientCall.send` and `half_close` send, and no thread is needed.
        """
        call = self._new_call(timeout, metadata, wait_for_ready, compression)
        call.begin()
        if requests is not None:
            self._send_all(call, requests)
        return call


class StreamUnary(_Multi):
    """Calls of a stream that are answered by one message."""

    def __call__(
        self,
        requests: Iterable[Any],
        timeout: float | None = None,
        metadata: CallMetadata | None = None,
        *,
        wait_for_ready: bool | None = None,
        compression: str | None = None,
    ) -> Any:
        """The answer; CallFailed unless the call ends with OK."""
        return _result(
            self.future(
                requests,
                timeout,
                metadata,
                wait_for_ready=wait_for_ready,
                compression=compression,
            )
        )

    def future(
        self,
        requests: Iterable[Any] | None,
        timeout: float | None = None,
        metadata: CallMetadata | None = None,
        *,
        wait_for_ready: bool | None = None,
        compression: str | None = None,
    ) -> ClientCall:
        """The call, under way."""
        call = self._new_call(timeout, metadata, wait_for_ready, compression)
        call.begin()
        if requests is not None:
            self._send_all(call, requests)
        return call


def _result(call: ClientCall) -> Any:
    try:
        return call.result()
    except CallFailed:
        raise
    except BaseException:
        # KeyboardInterrupt: nobody waits any more.
        with contextlib.suppress(Exception):
            call.cancel()
        raise
