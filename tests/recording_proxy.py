"""A proxy that notes each call: its RPC and its metadata."""

import contextlib
from concurrent.futures import ThreadPoolExecutor

import grpc

_WHOLE_MESSAGES = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class RecordingProxy(grpc.GenericRpcHandler):
    """Forwards calls to a server; `calls` has (RPC, metadata as a list of pairs) of each."""

    def __init__(self, channel):
        self._channel = channel
        self.calls = []
        self.address = ""

    def service(self, details):
        method = details.method
        if method.startswith("/grpc.health."):
            return None
        self.calls.append(
            (method.rpartition("/")[2], [tuple(e) for e in details.invocation_metadata])
        )
        if method.endswith("StreamInfer"):
            return grpc.stream_stream_rpc_method_handler(
                lambda messages, _: self._channel.stream_stream(method)(messages)
            )
        return grpc.unary_unary_rpc_method_handler(
            lambda message, _: self._channel.unary_unary(method)(message)
        )

    def sent(self, *names):
        """Each call's RPC, with the values of the metadata of some names."""
        return [
            (method, *([value for key, value in metadata if key == name] for name in names))
            for method, metadata in self.calls
        ]


@contextlib.contextmanager
def recording_proxy(server):
    """Start a proxy for the server at an address."""
    with grpc.insecure_channel(server, options=_WHOLE_MESSAGES) as channel:
        proxy = RecordingProxy(channel)
        front = grpc.server(ThreadPoolExecutor(), options=_WHOLE_MESSAGES)
        front.add_generic_rpc_handlers((proxy,))
        proxy.address = f"127.0.0.1:{front.add_insecure_port('127.0.0.1:0')}"
        front.start()
        try:
            yield proxy
        finally:
            front.stop(None).wait()
