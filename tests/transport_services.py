"""Methods that the tests of the transport call, for grpcio's server and for our own alike."""

# ruff: noqa: N802  (methods carry the names of their RPCs)

import threading
from concurrent.futures import ThreadPoolExecutor

import grpc

from transport.calling.channel import Channel, ChannelOptions
from transport.calling.client_call import CallFailed
from transport.options import ConnectionOptions
from transport.serving.grpc_handlers import GrpcHandlers
from transport.serving.server import Server, ServerOptions
from transport.workers import Workers

FAILURES = (grpc.RpcError, CallFailed)
UNLIMITED = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
]
PATIENCE_S = 30


class Methods(grpc.GenericRpcHandler):
    """Echoes, sums, failures; `cancelled` is set when a call of Wait is given up."""

    def __init__(self):
        self.cancelled = threading.Event()
        self.waiting = threading.Event()

    def service(self, details):
        """Find a method by its path."""
        name = details.method.removeprefix("/test/")
        kinds = {
            "Echo": grpc.unary_unary_rpc_method_handler,
            "Describe": grpc.unary_unary_rpc_method_handler,
            "Fail": grpc.unary_unary_rpc_method_handler,
            "Raise": grpc.unary_unary_rpc_method_handler,
            "Metadata": grpc.unary_unary_rpc_method_handler,
            "Wait": grpc.unary_unary_rpc_method_handler,
            "Who": grpc.unary_unary_rpc_method_handler,
            "Packed": grpc.unary_unary_rpc_method_handler,
            "Repeat": grpc.unary_stream_rpc_method_handler,
            "Sum": grpc.stream_unary_rpc_method_handler,
            "EchoStream": grpc.stream_stream_rpc_method_handler,
            "First": grpc.stream_stream_rpc_method_handler,
        }
        kind = kinds.get(name)
        return None if kind is None else kind(getattr(self, name))

    def Echo(self, request, context):
        return request

    def Describe(self, request, context):
        left = context.time_remaining()
        return f"{context.peer()} {None if left is None else round(left)}".encode()

    def Fail(self, request, context):
        context.set_trailing_metadata((("grpc-status-details-bin", b"\x00\xff"), ("why", "test")))
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, request.decode())

    def Raise(self, request, context):
        raise ArithmeticError("on purpose")

    def Metadata(self, request, context):
        got = {key: value for key, value in context.invocation_metadata() if key.startswith("x-")}
        context.send_initial_metadata(tuple(got.items()))
        context.set_trailing_metadata((("x-trailing-bin", bytes(range(256))),))
        return repr(sorted(got.items())).encode()

    def Wait(self, request, context):
        ended = threading.Event()
        context.add_callback(ended.set)
        self.waiting.set()
        assert ended.wait(PATIENCE_S)
        assert not context.is_active()
        self.cancelled.set()
        return b""

    def Packed(self, request, context):
        context.set_compression(grpc.Compression.Gzip)
        return request

    def Who(self, request, context):
        return b",".join(context.auth_context()["x509_common_name"])

    def Repeat(self, request, context):
        for _ in range(int(request)):
            yield request

    def Sum(self, requests, context):
        return str(sum(len(each) for each in requests)).encode()

    def EchoStream(self, requests, context):
        yield from requests

    def First(self, requests, context):
        yield next(requests)


class Peer:
    """A server of `Methods` and how to connect to it."""

    def __init__(
        self, kind, address="127.0.0.1:0", *, options=None, tls_context=None, credentials=None
    ):
        self.kind = kind
        self.methods = Methods()
        if kind == "grpcio":
            self._server = grpc.server(ThreadPoolExecutor(16), options=UNLIMITED)
            self._server.add_generic_rpc_handlers((self.methods,))
            if credentials is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, credentials)
            self._server.start()
            self.address = address if address.startswith("unix:") else f"127.0.0.1:{port}"
            return
        self._workers = Workers(16, 100, "test")
        handlers = GrpcHandlers((self.methods,), self._workers)
        self.server = Server([address], handlers, options or ServerOptions(), tls_context)
        self.address = self.server.addresses[0]

    def close(self):
        """Stop at once."""
        if self.kind == "grpcio":
            self._server.stop(None).wait()
        else:
            self.server.stop()
            self._workers.close()


def open_channel(kind, address, options=()):
    """A channel of either kind."""
    if kind == "grpcio":
        return grpc.insecure_channel(address, [*UNLIMITED, *options])
    return Channel(address)


def small_frames_channel(address):
    """Our own channel, which takes frames and windows of the least size only."""
    return Channel(
        address, ChannelOptions(ConnectionOptions(stream_window=65_535, max_frame=16_384))
    )
