"""Reject calls over the limit before reading their message, and time out slow senders.

A call holds a thread until its message has arrived. gRPC's own unary handlers wait without a limit,
so a few slow senders could block everybody else. Here the message is received as the first of a
stream, with a timeout; the bytes on the wire are the same.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from server.errors import Unsupported
from server.rpc import status
from server.rpc.idle_trim import IdleTrim
from server.rpc.thread_pools import InFlight


class Receiver:
    """Makes handlers of unary calls, and cancels calls whose message does not arrive."""

    def __init__(self, limit_s: float, idle_trim: IdleTrim) -> None:
        """`limit_s`: seconds in which a message must arrive, 0 for no limit."""
        self._limit_s = limit_s
        self._idle_trim = idle_trim
        self._expected: dict[grpc.ServicerContext, float] = {}
        self._closed = threading.Event()
        if limit_s:
            threading.Thread(target=self._watch, name="receiver", daemon=True).start()

    def close(self) -> None:
        """Stop the watching thread."""
        self._closed.set()

    def unary(
        self,
        behavior: Callable[[bytes, grpc.ServicerContext], bytes],
        pool: ThreadPoolExecutor,
        leave: Callable[[], None] = lambda: None,
    ) -> grpc.RpcMethodHandler:
        """A handler that runs `behavior` in a thread of the pool when the message has arrived.

        Errors become gRPC statuses; `leave` is called in every case.
        """

        def handle(messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
            try:
                message = self._message(messages, context)
                with self._idle_trim.around(len(message)):
                    return behavior(message, context)
            except grpc.RpcError as error:
                # The call is over: the client left, or took too long. gRPC keeps the error with the
                # call, which the frames of its traceback hold; raised on, it would get new ones.
                error.__traceback__ = None
                return b""
            except Exception as error:
                failure = error
            finally:
                leave()
            # Outside of the handler above, because abort itself raises.
            context.abort(*status.of(failure))
            raise failure

        return grpc.stream_unary_rpc_method_handler(on_pool(handle, pool))

    def _message(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        self._expected[context] = time.monotonic()
        message = None
        try:
            message = next(messages)
        except StopIteration:
            raise Unsupported("got a call without a message, expected exactly one") from None
        finally:
            del self._expected[context]
            if message is None:
                # One that was packed may have taken as much memory as any may, before it was
                # too large.
                self._idle_trim.trim_soon()
        return message

    def _watch(self) -> None:
        while not self._closed.wait(self._limit_s / 8):
            now = time.monotonic()
            for context, since in list(self._expected.items()):
                if now - since > self._limit_s:
                    context.cancel()


class Admission(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Rejects calls over the limit as they arrive, before a byte of a message is read."""

    def __init__(
        self,
        handlers: grpc.GenericRpcHandler,
        in_flight: Mapping[str, InFlight],
        pool: ThreadPoolExecutor,
    ) -> None:
        """`in_flight` by full method name; the method's handler calls `leave` at its end.

        Rejections run in the pool.
        """
        self._handlers = handlers
        self._in_flight = in_flight
        self._refusals = {method: _refusal(calls, pool) for method, calls in in_flight.items()}

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """The handler of an arriving call."""
        calls = self._in_flight.get(details.method)
        if calls is not None and not calls.enter():
            return self._refusals[details.method]
        return self._handlers.service(details)


def on_pool(behavior: Callable[..., Any], pool: ThreadPoolExecutor) -> Callable[..., Any]:
    """A behavior that gRPC runs in this pool."""
    # gRPC's own hook, which its health service uses too.
    behavior.experimental_thread_pool = pool  # type: ignore[attr-defined]
    return behavior


def _refusal(calls: InFlight, pool: ThreadPoolExecutor) -> grpc.RpcMethodHandler:
    def refuse(_: Iterator[bytes], context: grpc.ServicerContext) -> None:
        context.abort(*status.of(calls.refusal()))

    # Registered as a streaming call: gRPC does not read its messages before the handler runs.
    return grpc.stream_unary_rpc_method_handler(on_pool(refuse, pool))
