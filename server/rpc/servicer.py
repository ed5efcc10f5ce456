"""Answer the RPCs of GRPCInferenceService.

Handlers get the message as raw bytes and parse it in the worker thread: a malformed message becomes
INVALID_ARGUMENT, tensors are never copied by protobuf, and no parsing holds up gRPC's polling.
"""

import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version

import grpc

from protos import inference_pb2 as pb
from protos.codec import encode_response
from server.batching.request import Caller
from server.errors import InvalidInput, ModelUnavailable, ServerStopping
from server.repository.repository import Repository
from server.rpc import descriptions
from server.rpc.accounting.request_ends import METHOD
from server.rpc.idle_trim import IdleTrim
from server.rpc.inference import Inference
from server.rpc.stream import InferStream

SERVER_NAME = "argmax-serving"
_FOREVER_S = 10 * 365 * 86400
EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "logging",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "parameters",
    "statistics",
    "system_shared_memory",
)


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """Limits of a stream: bytes read ahead, seconds without a message."""

    read_ahead_bytes: int
    idle_s: float


class Servicer:
    """One method per RPC; each decodes, submits and encodes."""

    def __init__(
        self,
        repository: Repository,
        inference: Inference,
        streams: StreamLimits,
        idle_trim: IdleTrim,
        parameters: Mapping[str, str],
    ) -> None:
        """`parameters` appear in every model's configuration."""
        self._repository = repository
        self._inference = inference
        self._stream_limits = streams
        self._parameters = parameters
        self._idle_trim = idle_trim
        self._streams: weakref.WeakSet[InferStream] = weakref.WeakSet()
        self._streams_lock = threading.Lock()

    def ServerLive(self, request: pb.ServerLiveRequest) -> pb.ServerLiveResponse:
        """True: the process answers."""
        return pb.ServerLiveResponse(live=True)

    def ServerReady(self, request: pb.ServerReadyRequest) -> pb.ServerReadyResponse:
        """Whether the server accepts requests."""
        return pb.ServerReadyResponse(ready=self._repository.ready)

    def ModelReady(self, request: pb.ModelReadyRequest) -> pb.ModelReadyResponse:
        """Whether a version serves; NOT_FOUND for an unknown one."""
        try:
            self._repository.get(request.name, request.version)
        except ModelUnavailable:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=True)

    def ServerMetadata(self, request: pb.ServerMetadataRequest) -> pb.ServerMetadataResponse:
        """Name, version, and the supported extensions of the protocol."""
        return pb.ServerMetadataResponse(
            name=SERVER_NAME, version=version("argmax-serving"), extensions=EXTENSIONS
        )

    def ModelMetadata(self, request: pb.ModelMetadataRequest) -> pb.ModelMetadataResponse:
        """Inputs and outputs of a version."""
        model = self._repository.get(request.name, request.version)
        versions = [each.version for each in self._repository.models(request.name)]
        return descriptions.metadata(model, versions)

    def ModelConfig(self, request: pb.ModelConfigRequest) -> pb.ModelConfigResponse:
        """Configuration of a version."""
        model = self._repository.get(request.name, request.version)
        return pb.ModelConfigResponse(config=descriptions.config(model, self._parameters))

    def ModelStatistics(self, request: pb.ModelStatisticsRequest) -> pb.ModelStatisticsResponse:
        """Statistics of one version, of all versions of a model, or of all models."""
        if request.version and not request.name:
            raise InvalidInput("got a version without a model name, expected both")
        models = self._repository.models(request.name, request.version)
        return pb.ModelStatisticsResponse(model_stats=map(descriptions.statistics, models))

    def ModelInfer(self, data: bytes, context: grpc.ServicerContext) -> bytes:
        """Answer one request."""
        arrived_ns = time.monotonic_ns()
        caller = Caller(
            context.peer(),
            _deadline_ns(context, arrived_ns),
            context.add_callback,
            METHOD,
            context.invocation_metadata(),
        )
        message = self._inference.decode(data, arrived_ns, caller)
        pending = self._inference.begin(message, arrived_ns, caller)
        if not context.add_callback(pending.cancel):
            pending.cancel()
        return self._inference.finish(pending, encode_response).data

    def ModelStreamInfer(
        self, messages: Iterator[bytes], context: grpc.ServicerContext
    ) -> Iterator[bytes]:
        """Answer each message of a stream in order."""
        stream = InferStream(
            messages,
            self._inference,
            client=context.peer(),
            metadata=context.invocation_metadata(),
            deadline_ns=_deadline_ns(context, time.monotonic_ns()),
            read_ahead_bytes=self._stream_limits.read_ahead_bytes,
            idle_s=self._stream_limits.idle_s,
            errors_end_it=("triton_grpc_error", "true") in context.invocation_metadata(),
        )
        with self._streams_lock:
            self._streams.add(stream)
        try:
            if not self._repository.ready:
                # The stream may have opened after `stop_streams` ran.
                raise ServerStopping("the server is stopping")
            if context.add_callback(stream.abandon):
                read_ahead_bytes = self._stream_limits.read_ahead_bytes
                with self._idle_trim.around(read_ahead_bytes):
                    yield from stream.answers()
        finally:
            with self._streams_lock:
                self._streams.discard(stream)

    def stop_streams(self) -> None:
        """End every stream after its received messages are answered."""
        with self._streams_lock:
            streams = list(self._streams)
        for stream in streams:
            stream.stop()


def _deadline_ns(context: grpc.ServicerContext, now_ns: int) -> int | None:
    """The client's deadline on the monotonic clock."""
    left_s = context.time_remaining()
    # Without a deadline gRPC reports the time until about the year 10000.
    return None if left_s is None or left_s > _FOREVER_S else now_ns + int(left_s * 1e9)
