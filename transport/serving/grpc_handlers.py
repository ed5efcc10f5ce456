"""Serve what was written for grpcio: servicers, generic handlers, server interceptors.

Their methods block, so each call takes a thread of a pool as long as it runs. The pool is the
behaviour's own (`experimental_thread_pool`, as grpcio has it) or the adapter's.
"""

import logging
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import grpc

from transport.messages import MAX_MESSAGE_BYTES
from transport.serving.grpc_context import Aborted, Context
from transport.serving.handler import CallHandler, Method
from transport.serving.server_call import ServerCall
from transport.serving.server_connection import ServerConnection
from transport.status import Code, Status, StatusError
from transport.workers import Workers

_log = logging.getLogger(__name__)

_TOO_MANY = Status(Code.RESOURCE_EXHAUSTED, "Concurrent RPC limit exceeded!")
# Of a stream's requests that its method has not taken.
_READ_AHEAD_BYTES = 4 * 2**20
_READ_AHEAD_MESSAGES = 64
# Of answers, before the method waits for the client.
_SEND_AHEAD_BYTES = 1 * 2**20


class CallDetails(NamedTuple):
    """grpc.HandlerCallDetails."""

    method: str
    invocation_metadata: tuple[tuple[str, str | bytes], ...]


class GrpcHandlers:
    """Finds methods in grpcio's handlers; give it to `Server` as its `methods`."""

    def __init__(
        self,
        handlers: Sequence[grpc.GenericRpcHandler],
        workers: Workers,
        interceptors: Sequence[grpc.ServerInterceptor] = (),
        *,
        receive_s: float | None = None,
        idle_s: float | None = None,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        max_calls: int | None = None,
    ) -> None:
        """`workers` run the methods that have no pool; the first interceptor is asked first.

        `receive_s` and `max_message_bytes` apply where the server's own bounds are wider, `idle_s`
        between the messages of a stream. `max_calls` may be open on a connection.
        """
        self._handlers = handlers
        self._workers = workers
        self._receive_s = receive_s
        self._idle_s = idle_s
        self._max_calls = max_calls
        # Of each connection, those that are open; only its I/O thread adds to them.
        self._open: weakref.WeakKeyDictionary[ServerConnection, set[_BlockingCall]] = (
            weakref.WeakKeyDictionary()
        )
        self._max_message_bytes = max_message_bytes
        find: Callable[[Any], Any] = self._find
        for interceptor in reversed(interceptors):
            find = _intercepted(interceptor, find)
        self._service = find

    def __call__(self, path: str) -> Method:
        """The method for any path: whether there is one depends on the call's metadata, too."""
        return self._begin

    def _find(self, details: Any) -> Any:
        for handler in self._handlers:
            found = handler.service(details)
            if found is not None:
                return found
        return None

    def _begin(self, call: ServerCall) -> CallHandler:
        calls = self._open.setdefault(call.server_connection, set())
        if self._max_calls is not None and len(calls) >= self._max_calls:
            raise StatusError(
                Code.RESOURCE_EXHAUSTED,
                f"{self._max_calls} calls of other services are open on the connection, the most "
                "allowed",
            )
        context = Context(call)
        details = CallDetails(call.path, context.invocation_metadata())
        try:
            method = self._service(details)
        except Exception as error:
            _log.exception("Error in service handler!")
            raise StatusError(Code.UNKNOWN, f"Error in service handler! {error}") from error
        if method is None:
            raise StatusError(Code.UNIMPLEMENTED, "Method not found!")
        call.reader.max_bytes = min(call.reader.max_bytes, self._max_message_bytes)
        handler = _BlockingCall(call, context, method, self._workers, self._idle_s)
        handler.receive_s = self._receive_s
        if self._receive_s is not None:
            handler.open_ended = False
        calls.add(handler)
        context.add_callback(lambda: calls.discard(handler))
        return handler


def _intercepted(
    interceptor: grpc.ServerInterceptor, find: Callable[[Any], Any]
) -> Callable[[Any], Any]:
    return lambda details: interceptor.intercept_service(find, details)


class _BlockingCall(CallHandler):
    """One call whose method runs in a thread."""

    def __init__(
        self,
        call: ServerCall,
        context: Context,
        method: grpc.RpcMethodHandler,
        workers: Workers,
        idle_s: float | None,
    ) -> None:
        self._call = call
        self._context = context
        self._method = method
        self._workers = workers
        self._behavior = _behavior(method)
        self._lock = threading.Condition(threading.Lock())
        self._requests: deque[memoryview] = deque()
        self._bytes = 0
        self._held = False
        self._half_closed = False
        self._idle_s = idle_s
        self.open_ended = bool(method.request_streaming)
        call.room_wanted = self._wake
        if method.request_streaming:
            self._submit()

    # --- in the I/O thread

    def admit(self, length: int) -> bool:
        """See CallHandler."""
        with self._lock:
            self._held = (
                self._bytes > _READ_AHEAD_BYTES or len(self._requests) >= _READ_AHEAD_MESSAGES
            )
            return not self._held

    def message(self, message: memoryview) -> None:
        """See CallHandler."""
        if self._requests and not self._method.request_streaming:
            raise StatusError(Code.UNIMPLEMENTED, "got a second message, expected one")
        if self._method.request_streaming:
            # Its first message came in time: the next one may take longer.
            self.receive_s = self._idle_s
            self.open_ended = self._idle_s is None
        with self._lock:
            self._requests.append(message)
            self._bytes += len(message)
            self._lock.notify_all()

    def half_closed(self) -> None:
        """See CallHandler."""
        with self._lock:
            self._half_closed = True
            self._lock.notify_all()
        if self._method.request_streaming:
            return
        if not self._requests:
            raise StatusError(Code.UNIMPLEMENTED, "got no message, expected one")
        self._submit()

    def cancelled(self) -> None:
        """See CallHandler."""
        self._wake()
        self._context.end()

    def _wake(self) -> None:
        with self._lock:
            self._lock.notify_all()

    def _submit(self) -> None:
        pool = getattr(self._behavior, "experimental_thread_pool", None)
        if pool is None:
            if not self._workers.submit(self._run):
                self._finish(_TOO_MANY)
            return
        try:
            pool.submit(self._run)
        except RuntimeError:
            self._finish(Status(Code.UNAVAILABLE, "the server stops"))

    # --- in the method's thread

    def _run(self) -> None:
        if self._call.done:
            return
        try:
            status = self._run_method()
        except Aborted:
            status = self._context.status("")
        except grpc.RpcError as error:
            # Of an iterator of requests whose call has ended.
            status = self._failed(error)
        except Exception as error:
            _log.exception("Exception calling application: %s", error)
            status = self._failed(error)
        if status is not None:
            self._finish(status)

    def _failed(self, error: Exception) -> Status:
        return self._context.status(f"Exception calling application: {error}")

    def _run_method(self) -> Status | None:
        method = self._method
        if method.request_streaming:
            argument: Any = _Requests(self)
        else:
            argument = self._deserialized(self._requests.popleft())
        if getattr(self._behavior, "experimental_non_blocking", False):
            self._behavior(argument, self._context, self._send_later)
            return None
        answer = self._behavior(argument, self._context)
        if method.response_streaming:
            self._send_all(answer)
            return self._context.status()
        status = self._context.status()
        if status.code is not Code.OK:
            return status
        buffers = self._serialized(answer)
        if status.trailing or self._call.started:
            self._send(buffers)
            return status
        self._call.answer(buffers)
        self._context.end()
        return None

    def _send_all(self, answers: Iterable[Any]) -> None:
        iterator = iter(answers)
        try:
            for answer in iterator:
                if self._call.done or not self._send(self._serialized(answer)):
                    return
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()

    def _send_later(self, answer: Any) -> None:
        """Send an answer from any thread, None at the end; grpcio's non-blocking handlers."""
        if answer is None:
            self._finish(self._context.status())
            return
        try:
            self._call.send(self._serialized(answer))
        except Exception as error:
            self._finish(self._failed(error))

    def _send(self, buffers: Sequence[bytes]) -> bool:
        call = self._call
        if not call.send(buffers):
            return False
        while call.connection.sender.pump(call) and call.pending:
            pass
        if call.pending > _SEND_AHEAD_BYTES:
            with self._lock:
                self._lock.wait_for(lambda: call.pending <= _SEND_AHEAD_BYTES or call.done)
        return not call.done

    def _finish(self, status: Status) -> None:
        try:
            self._call.finish(status)
        except ValueError as error:
            self._call.finish(Status(Code.INTERNAL, f"the status cannot be sent: {error}"))
        self._context.end()

    def next_request(self) -> Any:
        """The next request of a stream, None at the end; the method's threads call."""
        with self._lock:
            while not self._requests and not self._half_closed and not self._call.done:
                self._lock.wait()
            if self._call.done:
                raise grpc.RpcError
            if not self._requests:
                raise StopIteration
            message = self._requests.popleft()
            self._bytes -= len(message)
            held, self._held = self._held, False
        if held:
            self._call.resume()
        return self._deserialized(message)

    def _deserialized(self, message: memoryview) -> Any:
        data = message.obj if type(message.obj) is bytes else bytes(message)
        deserialize = self._method.request_deserializer
        if deserialize is None:
            return data
        try:
            return deserialize(data)
        except Exception as error:
            _log.exception("Exception deserializing request!")
            self._context.set_code(grpc.StatusCode.INTERNAL)
            self._context.set_details(f"Exception deserializing request! {error}")
            raise Aborted from error

    def _serialized(self, answer: Any) -> Sequence[bytes]:
        serialize = self._method.response_serializer
        try:
            return (answer if serialize is None else serialize(answer),)
        except Exception as error:
            _log.exception("Exception serializing response!")
            self._context.set_code(grpc.StatusCode.INTERNAL)
            self._context.set_details(f"Failed to serialize response! {error}")
            raise Aborted from error


def _behavior(method: grpc.RpcMethodHandler) -> Callable[..., Any]:
    if method.request_streaming:
        found = method.stream_stream if method.response_streaming else method.stream_unary
    else:
        found = method.unary_stream if method.response_streaming else method.unary_unary
    behavior: Callable[..., Any] = found
    return behavior


class _Requests(Iterator[Any]):
    """The requests of a stream, as its method iterates over them."""

    def __init__(self, call: _BlockingCall) -> None:
        self._call = call

    def __next__(self) -> Any:
        return self._call.next_request()

    def next(self) -> Any:
        """As grpcio's iterators have it."""
        return self._call.next_request()
