"""Answer health checks, even while every other thread waits for a model or a message."""

from concurrent.futures import ThreadPoolExecutor

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2

from protos.errors import InvalidMessage
from server.rpc import status
from server.rpc.admission import Receiver, on_pool
from server.rpc.thread_pools import started

_CHECKERS = 4
_WATCHERS = 4
SERVICE = health.SERVICE_NAME


class Health:
    """grpc.health.v1, with its own threads."""

    def __init__(self, services: tuple[str, ...], receiver: Receiver | None) -> None:
        """`services` are SERVING until `stop`.

        `receiver` bounds the time for a message, where the transport itself does not.
        """
        # A watch holds a thread until its message arrives; checks must not wait for it.
        watchers = started(_WATCHERS, "watch")
        self._servicer = health.HealthServicer(experimental_thread_pool=watchers)
        self._services = services
        checkers = started(_CHECKERS, "health")
        self.handlers = grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Check": self._unary(checkers)
                if receiver is None
                else receiver.unary(self._check, checkers),
                "Watch": grpc.unary_stream_rpc_method_handler(
                    self._servicer.Watch,
                    request_deserializer=health_pb2.HealthCheckRequest.FromString,
                    response_serializer=health_pb2.HealthCheckResponse.SerializeToString,
                ),
            },
        )

    def start(self) -> None:
        """Report every service as SERVING."""
        for service in self._services:
            self._servicer.set(service, health_pb2.HealthCheckResponse.SERVING)

    def stop(self) -> None:
        """Report NOT_SERVING from now on."""
        self._servicer.enter_graceful_shutdown()

    def _unary(self, pool: ThreadPoolExecutor) -> grpc.RpcMethodHandler:
        def check(data: bytes, context: grpc.ServicerContext) -> bytes:
            try:
                return self._check(data, context)
            except InvalidMessage as error:
                context.abort(*status.of(error))
                raise

        return grpc.unary_unary_rpc_method_handler(on_pool(check, pool))

    def _check(self, data: bytes, context: grpc.ServicerContext) -> bytes:
        try:
            request = health_pb2.HealthCheckRequest.FromString(data)
        except DecodeError:
            raise InvalidMessage("malformed HealthCheckRequest") from None
        encoded: bytes = self._servicer.Check(request, context).SerializeToString()
        return encoded
