"""A proxy that rejects every other call with UNAVAILABLE, to test whether a client retries."""

import contextlib
import itertools
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

# A stream is rejected in the middle: while the client sends, before it has an answer.
_REFUSED_AFTER_MESSAGES = 5
_HEALTH = "/grpc.health."
_WHOLE_MESSAGES = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@contextlib.contextmanager
def refusing_proxy(server: str) -> Iterator[str]:
    """Forward the second, fourth, ... call of each RPC to `server`; yield the address."""
    with grpc.insecure_channel(server, options=_WHOLE_MESSAGES) as channel:
        proxy = grpc.server(ThreadPoolExecutor(), options=_WHOLE_MESSAGES)
        proxy.add_generic_rpc_handlers((_Refusing(channel),))
        port = proxy.add_insecure_port("127.0.0.1:0")
        proxy.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            proxy.stop(None).wait()


class _Refusing(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """Serves any RPC with bytes in and out; those that end in StreamInfer are streams.

    Health checks are forwarded: a client whose health check fails would not try other calls.
    """

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self._calls: defaultdict[str, Iterator[int]] = defaultdict(itertools.count)

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """Handle one call; None: there is no such RPC."""
        method = details.method
        if method.startswith(_HEALTH):
            return None
        refused = next(self._calls[method]) % 2 == 0

        def unary(message: bytes, context: grpc.ServicerContext) -> Any:
            if refused:
                context.abort(grpc.StatusCode.UNAVAILABLE, "try again")
            return self._channel.unary_unary(method)(message)

        def stream(messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[Any]:
            if refused:
                list(itertools.islice(messages, _REFUSED_AFTER_MESSAGES))
                context.abort(grpc.StatusCode.UNAVAILABLE, "try again")
            yield from self._channel.stream_stream(method)(messages)

        if method.endswith("StreamInfer"):
            return grpc.stream_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(unary)
