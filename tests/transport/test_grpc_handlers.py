"""What was written for grpcio's server, on ours: health, reflection, interceptors, thread pools."""

import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc
from transport_services import PATIENCE_S, UNLIMITED, Methods

from transport.serving.grpc_handlers import GrpcHandlers
from transport.serving.server import Server
from transport.workers import Workers


class Collect:
    """Takes the place of grpc.Server where handlers are registered."""

    def __init__(self):
        self.handlers = []

    def add_generic_rpc_handlers(self, handlers):
        self.handlers += handlers

    def add_registered_method_handlers(self, service, methods):
        """As generated code also calls; the generic handler has them all."""


class Deny(grpc.ServerInterceptor):
    """Lets only calls with a token pass."""

    def __init__(self, log):
        self.log = log

    def intercept_service(self, continuation, details):
        self.log.append(details.method)
        if ("token", "right") in details.invocation_metadata:
            return continuation(details)

        def refuse(request, context):
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "no token")

        return grpc.unary_unary_rpc_method_handler(refuse)


class Served:
    """A server of grpcio's handlers, and a channel of grpcio to it."""

    def __init__(self, handlers, *, threads=4, waiting=4, interceptors=()):
        self._workers = Workers(threads, waiting, "test")
        self._server = Server(["127.0.0.1:0"], GrpcHandlers(handlers, self._workers, interceptors))
        self.channel = grpc.insecure_channel(self._server.addresses[0], UNLIMITED)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.channel.close()
        self._server.stop()
        self._workers.close()


@pytest.mark.parametrize("non_blocking", [True, False])
def test_grpcios_health_service_is_served(non_blocking):
    servicer = health.HealthServicer(experimental_non_blocking=non_blocking)
    collected = Collect()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, collected)
    servicer.set("one", health_pb2.HealthCheckResponse.SERVING)
    with Served(collected.handlers) as served:
        stub = health_pb2_grpc.HealthStub(served.channel)
        one = health_pb2.HealthCheckRequest(service="one")
        assert stub.Check(one, timeout=PATIENCE_S).status == 1
        watched = stub.Watch(one, timeout=PATIENCE_S)
        assert next(watched).status == 1
        servicer.set("one", health_pb2.HealthCheckResponse.NOT_SERVING)
        assert next(watched).status == 2
        watched.cancel()
        with pytest.raises(grpc.RpcError, match="NOT_FOUND"):
            stub.Check(health_pb2.HealthCheckRequest(service="none"), timeout=PATIENCE_S)


def test_grpcios_reflection_is_served():
    collected = Collect()
    servicer = reflection.ReflectionServicer(["test.Service"])
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, collected)
    with Served(collected.handlers) as served:
        stub = reflection_pb2_grpc.ServerReflectionStub(served.channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        answers = list(stub.ServerReflectionInfo(iter([request]), timeout=PATIENCE_S))
        names = [each.name for each in answers[0].list_services_response.service]
        assert names == ["test.Service"]


def test_interceptors_are_asked_in_their_order():
    first, second = [], []
    interceptors = (Deny(first), Deny(second))
    with Served((Methods(),), interceptors=interceptors) as served:
        call = served.channel.unary_unary("/test/Echo")
        with pytest.raises(grpc.RpcError, match="no token"):
            call(b"x", timeout=PATIENCE_S)
        assert (first, second) == (["/test/Echo"], [])
        assert call(b"x", timeout=PATIENCE_S, metadata=[("token", "right")]) == b"x"
        assert (len(first), len(second)) == (2, 1)


def test_calls_beyond_the_threads_and_their_queue_are_refused():
    methods = Methods()
    with Served((methods,), threads=1, waiting=1) as served:
        call = served.channel.unary_unary("/test/Wait")
        calls = [call.future(b"", timeout=PATIENCE_S)]
        assert methods.waiting.wait(PATIENCE_S)
        calls += [call.future(b"", timeout=PATIENCE_S) for _ in range(3)]
        refused = threading.Semaphore(0)
        for each in calls:
            each.add_done_callback(lambda _: refused.release())
        for _ in range(2):
            assert refused.acquire(timeout=PATIENCE_S)
        codes = [each.code().name for each in calls if each.done()]
        assert codes == ["RESOURCE_EXHAUSTED"] * 2
        for each in calls:
            each.cancel()


def test_a_behaviour_runs_on_the_pool_that_it_brings():
    pool = ThreadPoolExecutor(1, "of-its-own")

    def behaviour(request, context):
        return threading.current_thread().name.encode()

    behaviour.experimental_thread_pool = pool

    class Handler(grpc.GenericRpcHandler):
        def service(self, details):
            return grpc.unary_unary_rpc_method_handler(behaviour)

    with Served((Handler(),)) as served:
        name = served.channel.unary_unary("/test/Any")(b"", timeout=PATIENCE_S)
    assert name.startswith(b"of-its-own")
    pool.shutdown()


PROGRAM = """
    import threading, sys
    import grpc
    from transport.calling.channel import Channel
    from transport.serving.grpc_handlers import GrpcHandlers
    from transport.serving.server import Server
    from transport.workers import Workers

    begun = threading.Event()

    class Hang(grpc.GenericRpcHandler):
        def service(self, details):
            def hang(request, context):
                begun.set()
                threading.Event().wait()
            return grpc.unary_unary_rpc_method_handler(hang)

    server = Server(["127.0.0.1:0"], GrpcHandlers((Hang(),), Workers(2, 2, "test")))
    channel = Channel(server.addresses[0])
    call = channel.unary_unary("/test/Hang").future(b"")
    assert begun.wait(20)
    print("ends", flush=True)
"""


def test_a_program_that_closes_nothing_still_ends():
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (0, "ends\n"), ran.stderr
